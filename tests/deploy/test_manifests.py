"""compose, Kubernetes and systemd: hardened everywhere, named by version, and started with commands that there are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.settings import Settings
from tests.deploy.commands import refusal

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
IMAGE = re.compile(r"^[a-z0-9./-]+:\d+\.\d+(\.\d+)?(-[a-z]+)?(@sha256:[0-9a-f]{64})?$")
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())


def manifests() -> Iterator[dict[str, Any]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in manifests():
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield one["metadata"]["name"], spec["template"]["spec"]


def containers() -> list[dict[str, Any]]:
    return [container for _, pod in pods() for container in (*pod.get("initContainers", ()), *pod["containers"])]


def test_every_image_is_named_by_version_or_digest() -> None:
    named = [service["image"] for service in COMPOSE["services"].values()] + [one["image"] for one in containers()]
    assert len(named) > 6
    assert [name for name in named if not IMAGE.match(name)] == []


@pytest.mark.parametrize("file", ["compose.yaml", "gateway.yaml"])
def test_a_service_of_compose_can_not_write_its_image_or_gain_rights(file: str) -> None:
    services = yaml.safe_load((DEPLOY / "compose" / file).read_text())["services"]
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert IMAGE.match(service["image"])
        assert all(
            (DEPLOY / "compose" / one.split(":")[0]).exists() for one in service["volumes"] if one.startswith("../")
        )


def test_nothing_in_compose_but_the_proxy_can_be_reached_from_outside() -> None:
    outside = [name for name, network in COMPOSE["networks"].items() if not (network or {}).get("internal")]
    assert outside == ["outside"]
    reached = {name for name, one in COMPOSE["services"].items() if "outside" in one["networks"] or one.get("ports")}
    assert reached == {"proxy"}


def test_every_container_of_kubernetes_is_restricted() -> None:
    for name, pod in pods():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and context["runAsNonRoot"], container["name"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_what_a_container_mounts_is_there() -> None:
    claims = {
        claim["metadata"]["name"]
        for one in manifests()
        for claim in one.get("spec", {}).get("volumeClaimTemplates", [])
    }
    for name, pod in pods():
        there = {volume["name"] for volume in pod["volumes"]} | (claims if name == "broker" else set())
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= there, name


def test_what_opens_batches_has_room_in_memory_so_that_nothing_decrypted_comes_to_a_disk() -> None:
    assert {name for name, one in COMPOSE["services"].items() if "shm_size" in one} == {"broker", "nightly"}
    for name, pod in pods():
        if name in ("broker", "nightly"):
            (container,) = [one for one in pod["containers"] if one["name"] == name]
            (mounted,) = [one["name"] for one in container["volumeMounts"] if one["mountPath"] == "/dev/shm"]
            (volume,) = [one for one in pod["volumes"] if one["name"] == mounted]
            assert volume["emptyDir"]["medium"] == "Memory"


def test_the_owner_of_the_tables_is_known_where_they_are_made_and_nowhere_else() -> None:
    knows = {
        container["name"]
        for container in containers()
        if "owner" in {mount["name"] for mount in container["volumeMounts"]}
    }
    assert knows == {"prepare"}
    secrets = {name: one.get("secrets", []) for name, one in COMPOSE["services"].items()}
    assert {name for name, given in secrets.items() if "owner" in str(given)} == {"database", "manage"}


def test_nothing_goes_in_or_out_but_what_a_policy_names() -> None:
    policies = [one for one in manifests() if one["kind"] == "NetworkPolicy"]
    (closed,) = [one["spec"] for one in policies if one["metadata"]["name"] == "nothing-else"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for one in policies:
        for rule in one["spec"].get("egress", []):
            assert rule["to"] and rule["ports"], one["metadata"]["name"]


def test_the_night_never_runs_twice_at_once_and_goes_by_the_clock_of_london() -> None:
    (night,) = [one["spec"] for one in manifests() if one["kind"] == "CronJob"]
    assert (night["concurrencyPolicy"], night["timeZone"]) == ("Forbid", "Europe/London")
    timer = (DEPLOY / "systemd" / "broker-nightly.timer").read_text()
    assert "Persistent=true" in timer
    assert re.search(r"OnCalendar=.*Europe/London", timer)


def commands() -> Iterator[list[str]]:
    """Every command of ours that something here starts."""
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        for line in re.findall(r"(?m)^ExecStart(?:Post)?=/opt/\w+/bin/(.+)$", unit.read_text()):
            yield line.replace("${BROKER_UID}", "1234").split()
    for service in COMPOSE["services"].values():
        if service["image"].startswith("safeguarding-broker:") and "command" in service:
            yield ["broker", *service["command"]]
    for container in containers():
        if container["image"].startswith("safeguarding-broker:"):
            yield ["broker", *container["args"]]


@pytest.mark.parametrize("command", sorted(commands()), ids=" ".join)
def test_a_command_that_is_started_is_one_that_there_is(command: list[str]) -> None:
    assert refusal(command) is None


def test_every_variable_that_is_set_is_a_setting() -> None:
    known = {f"BROKER_{name.upper()}" for name in Settings.model_fields} | {"BROKER_CONFIG", "BROKER_UID"}
    known |= {"BROKER_SIGNER_DIR"}
    texts = [
        path.read_text()
        for folder in ("compose", "kubernetes", "systemd")
        for path in (DEPLOY / folder).rglob("*")
        if path.is_file()
    ]
    found = {
        name
        for text in (*texts, (DEPLOY / "kustomization.yaml").read_text())
        for name in re.findall(r"\bBROKER_[A-Z_]+\b", text)
    }
    assert found - known == set()


def test_kustomize_is_given_files_that_there_are() -> None:
    asked = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    files = asked["resources"] + [file for one in asked["configMapGenerator"] for file in one.get("files", [])]
    assert [name for name in files if not (DEPLOY / name).is_file()] == []
    assert {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} == {
        Path(name).name for name in asked["resources"]
    }


def test_a_unit_may_do_what_the_program_does_when_it_starts() -> None:
    """`broker` gives up core files by setrlimit, which systemd counts among @resources."""
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        assert "@resources" not in unit.read_text()
