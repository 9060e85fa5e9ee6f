"""The key-encryption key inside a PKCS#11 token (an HSM, or SoftHSM): it seals and opens there, and never comes out.

AES-256-GCM as `DataKey` writes it, so that a key moves into a token without anything being sealed anew.  python-pkcs11
is loaded only where the settings name a token.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from broker import folders
from broker.errors import KeyUnavailable, Undecipherable
from broker.keys import KEY_BYTES, NONCE_BYTES, DataKey, Keys, clear_secret, seal_folder

if TYPE_CHECKING:
    import pkcs11

TAG_BITS: Final = 128
_PROBE: Final = b"probe"

T = TypeVar("T")


class HsmKey:
    """One AES key of one token, by its label.  Threads take turns; a session that the token dropped is opened anew."""

    def __init__(self, module: Path, *, token: str, label: str, pin: str) -> None:
        """Raises KeyUnavailable if the library, the token or the PIN is wrong.  The key need not be there yet."""
        try:
            import pkcs11
        except ImportError:
            raise KeyUnavailable("pkcs11 takes python-pkcs11: pip install 'safeguarding-broker[pkcs11]'") from None
        self._pkcs11 = pkcs11
        self._token, self._label, self._pin = token, label, pin
        self._turn = threading.RLock()
        self._key: Any = None
        try:
            self._library = pkcs11.lib(str(module))
        except RuntimeError:
            raise KeyUnavailable(f"pkcs11.module: {module} is no PKCS#11 library that loads here") from None
        self._session: Any = None
        self._session = self._opened()

    def __repr__(self) -> str:
        return f"HsmKey({self._label!r})"

    def there(self) -> bool:
        """Whether the token holds the key.  Raises KeyUnavailable for two of one label, or one that could be read."""
        try:
            found = self._found()
        except self._pkcs11.NoSuchKey:
            return False
        attributes = self._pkcs11.Attribute
        if found[attributes.EXTRACTABLE] or not found[attributes.SENSITIVE]:
            raise KeyUnavailable(f"{self._label} can be read out of token {self._token}: it must be sensitive and stay")
        return True

    def make(self, value: bytes | None = None) -> None:
        """Have the token make the key; or bring one in, which was outside until now.  Kept if it is there."""
        if self.there():
            return
        attributes, kinds = self._pkcs11.Attribute, self._pkcs11.KeyType
        kept = {
            attributes.TOKEN: True, attributes.PRIVATE: True, attributes.SENSITIVE: True, attributes.EXTRACTABLE: False,
            attributes.ENCRYPT: True, attributes.DECRYPT: True,
        }  # fmt: skip
        with self._turn:
            try:
                if value is None:
                    self._session.generate_key(kinds.AES, KEY_BYTES * 8, label=self._label, store=True, template=kept)
                else:
                    given = {
                        attributes.CLASS: self._pkcs11.ObjectClass.SECRET_KEY, attributes.KEY_TYPE: kinds.AES,
                        attributes.LABEL: self._label, attributes.VALUE: value,
                    }  # fmt: skip
                    self._session.create_object(given | kept)
            except self._pkcs11.PKCS11Error as refused:
                raise KeyUnavailable(f"token {self._token} makes no key: {type(refused).__name__}") from None

    def seal(self, plain: bytes | memoryview, *, bound_to: bytes) -> bytes:
        """Nonce, ciphertext and tag, as `DataKey.seal` gives them.  Raises KeyUnavailable if the token is out."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._ask(lambda key: key.encrypt(bytes(plain), **self._gcm(nonce, bound_to)))

    def open(self, sealed: bytes, *, bound_to: bytes) -> bytes:
        """What was sealed.  Raises Undecipherable if place or bytes are others, KeyUnavailable if the token is out."""
        nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._ask(lambda key: key.decrypt(body, **self._gcm(nonce, bound_to)))
        except KeyUnavailable:
            # A token says "general error" of a wrong tag and of its own trouble alike: a probe tells them apart.
            self._probe()
            raise Undecipherable("sealed bytes do not open here") from None

    def _probe(self) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._ask(lambda key: key.encrypt(_PROBE, **self._gcm(nonce, b"")))
        if self._ask(lambda key: key.decrypt(sealed, **self._gcm(nonce, b""))) != _PROBE:
            raise KeyUnavailable(f"token {self._token} opens something else than it sealed")

    def _gcm(self, nonce: bytes, bound_to: bytes) -> dict[str, Any]:
        parameters = self._pkcs11.GCMParams(nonce, bound_to, TAG_BITS)
        return {"mechanism": self._pkcs11.Mechanism.AES_GCM, "mechanism_param": parameters}

    def _ask(self, what: Callable[[Any], bytes]) -> bytes:
        """Twice if need be: the second time over a new session."""
        with self._turn:
            try:
                return bytes(what(self._held()))
            except self._pkcs11.PKCS11Error:
                pass
            try:
                self._session, self._key = self._opened(), None
                return bytes(what(self._held()))
            except self._pkcs11.PKCS11Error as refused:
                raise KeyUnavailable(f"token {self._token} refuses: {type(refused).__name__}") from None

    def _held(self) -> Any:
        if self._key is None:
            self._key = self._found()
        return self._key

    def _found(self) -> Any:
        with self._turn:
            try:
                return self._session.get_key(
                    object_class=self._pkcs11.ObjectClass.SECRET_KEY, key_type=self._pkcs11.KeyType.AES,
                    label=self._label,
                )  # fmt: skip
            except self._pkcs11.MultipleObjectsReturned:
                raise KeyUnavailable(f"token {self._token} holds several keys called {self._label}") from None

    def _opened(self) -> pkcs11.Session:
        errors = self._pkcs11
        try:
            if self._session is not None:
                self._session.close()
        except errors.PKCS11Error:
            pass  # the token dropped it already
        try:
            token = self._library.get_token(token_label=self._token)
            try:
                return token.open(user_pin=self._pin, rw=True)
            except errors.UserAlreadyLoggedIn:  # signing in is the process's, not the session's
                return token.open(rw=True)
        except errors.NoSuchToken:
            raise KeyUnavailable(f"pkcs11.token: there is no token called {self._token}") from None
        except errors.PinIncorrect:
            raise KeyUnavailable("pkcs11.pin: the token does not take it") from None
        except errors.PKCS11Error as refused:
            raise KeyUnavailable(f"token {self._token} can't be opened: {type(refused).__name__}") from None


def make_in(folder: Path, kek: HsmKey, environment: Mapping[str, str] = os.environ) -> Keys:
    """A broker's keys with the KEK in a token: made where they are missing.

    Raises KeyUnavailable where the folder or the environment has a KEK already, and the token none: `move_in` is meant.
    """
    if not kek.there():
        if clear_secret(folder, "kek", environment) is not None:
            raise KeyUnavailable("this broker has a key-encryption key outside the token: run `broker keys seal`")
        kek.make()
    return Keys.make(folder, environment, kek)


def move_in(folder: Path, kek: HsmKey, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Bring a broker's KEK into a token, seal its other keys' files under that, remove the clear ones; which were.

    Killed anywhere it can be run again.  Raises KeyUnavailable, and has removed nothing, if there is no KEK to bring or
    the token has another one of that label.
    """
    held = clear_secret(folder, "kek", environment)
    if held is None and not kek.there():
        raise KeyUnavailable("there is no key-encryption key to move: `broker keys init` makes one in the token")
    if held is not None:
        kek.make(held)
        try:
            kek.open(DataKey(held).seal(_PROBE, bound_to=_PROBE), bound_to=_PROBE)
        except Undecipherable:
            raise KeyUnavailable("the token holds another key of that label: name a new label in pkcs11.key") from None
    sealed = seal_folder(folder, kek)
    Keys.load(folder, environment, kek)
    (folder / "kek.key").unlink(missing_ok=True)
    folders.sync(folder)
    return sealed
