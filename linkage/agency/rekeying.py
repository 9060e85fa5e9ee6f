"""The linkage key's next epoch in an agency's home: its key beside the one in use, then in its place."""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from linkage.agency.keys import KEY_BYTES, BadKey, LinkageKeys, read_hex_key, write_secret
from linkage.agency.settings import EPOCH, BadHome, Home, flush_folder, write_whole


def lay_beside(home: Home, epoch: str, *, key: Path | None = None) -> tuple[dict[str, Any], Path]:
    """Keep the key of an epoch beside the one in use; what the broker is told of it, and the file that says so.

    Said again it gives the same.  Raises BadHome for a name that is none or is in use, BadKey for a key that is none,
    is the one in use, or is another than lies there.
    """
    if not re.fullmatch(EPOCH, epoch):
        raise BadHome("epoch: letters, digits, '.' and '-' are due, such as 2027-1")
    if epoch == home.settings.key_epoch:
        raise BadHome(f"epoch: {epoch} is in use: the next one has another name")
    path = _path(home, epoch)
    given = None if key is None else read_hex_key(key)
    if given is not None and given == read_hex_key(_path_in_use(home)):
        raise BadKey(f"{key} is the key in use: the next epoch has a key of its own")
    if not path.exists():
        write_secret(path, (given or secrets.token_bytes(KEY_BYTES)).hex().encode() + b"\n")
    elif given is not None and given != read_hex_key(path):
        raise BadKey(f"{path} holds another key; keys are never overwritten")
    told = _told(home, home.keys_of(epoch))
    place = home.folder / f"epoch-{epoch}.json"
    write_whole(place, json.dumps(told, indent=2).encode() + b"\n")
    return told, place


def use(home: Home, epoch: str) -> str:
    """Encode under an epoch's key from now on; the epoch before.  Killed anywhere, it is done or may be done again.

    Raises BadKey if the key of that epoch is not here.
    """
    before = home.settings.key_epoch
    if epoch != before:
        if not _path(home, epoch).exists():
            raise BadKey(f"{_path(home, epoch)} is not there: `agency link-key next --epoch {epoch}` takes it")
        old = _path(home, before)
        if not old.exists():
            os.link(_path_in_use(home), old)
            flush_folder(old.parent)
    keys = home.keys_of(epoch)
    told = {name: value for name, value in _told(home, keys).items() if name.startswith("key_") or name == "canaries"}
    write_whole(home.folder / "public.json", json.dumps({**home.public, **told}, indent=2).encode() + b"\n")
    settings = home.folder / "agency.toml"
    text, found = re.subn(
        r"(?m)^key_epoch\s*=.*$", f'key_epoch = "{epoch}"', settings.read_text(encoding="utf-8"), count=1
    )
    if not found:
        raise BadHome(f"{settings}: key_epoch = ... is due")
    write_whole(settings, text.encode())
    if _path(home, epoch).exists():
        (home.folder / "keys" / "link.key").unlink(missing_ok=True)  # each epoch's key has a file of its own now
    return before


def _path(home: Home, epoch: str) -> Path:
    return home.folder / "keys" / f"link-{epoch}.key"


def _path_in_use(home: Home) -> Path:
    own = _path(home, home.settings.key_epoch)
    return own if own.exists() else home.folder / "keys" / "link.key"


def _told(home: Home, keys: LinkageKeys) -> dict[str, Any]:
    return {
        "partnership": home.settings.partnership,
        "profile": home.profile,
        "key_epoch": keys.epoch,
        "key_fingerprint": keys.fingerprint(home.profile),
        "canaries": [str(token) for token in keys.canaries(home.profile)],
    }
