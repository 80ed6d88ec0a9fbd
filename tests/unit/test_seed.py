"""The seed of cloud-init: its files, what is refused, and where the user data is kept."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from sublet.domain.disks import LABEL_DISK, Disk
from sublet.domain.errors import InvalidArgument, NameInUse
from sublet.domain.image import ImageConfig
from sublet.domain.instance import Instance, State
from sublet.domain.nics import Nic
from sublet.domain.seed import DIRECTORY, MAX_USER_DATA, Seed, check_seed, files
from sublet.domain.spec import InstanceSpec, Isolation, check_spec
from sublet.engine import seeds

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3pO7gkQe7x1rYjvV0u3Zq5wV2bE0m9yq1nYb7c8d9e me@here"
SECRET = "#cloud-config\npassword: hunter2\n"
NICS = (Nic("02:00:0a:01:00:02", "10.1.0.2", 24, "10.1.0.1"), Nic("02:2", "10.2.0.2", 24))


def seed(**changes: Any) -> Seed:
    return Seed("abc", "web", NICS, "search a b\nnameserver 10.1.0.1\noptions x\n\n", **changes)


def read(found: dict[str, str], name: str) -> Any:
    return json.loads(found[f"{DIRECTORY}/{name}"])


def test_the_seed_tells_who_it_is_and_where() -> None:
    found = files(seed(ssh_keys=(KEY,), user_data=SECRET))
    assert sorted(found) == [
        f"{DIRECTORY}/{name}" for name in ("meta-data", "network-config", "user-data")
    ]
    assert read(found, "meta-data") == {
        "instance-id": "i-abc",
        "local-hostname": "web",
        "public-keys": [KEY],
    }
    assert found[f"{DIRECTORY}/user-data"] == SECRET
    assert read(found, "network-config") == {
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": {"macaddress": "02:00:0a:01:00:02"},
                "set-name": "eth0",
                "dhcp4": False,
                "addresses": ["10.1.0.2/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.1.0.1"}],
                "nameservers": {"addresses": ["10.1.0.1"], "search": ["a", "b"]},
            },
            "eth1": {
                "match": {"macaddress": "02:2"},
                "set-name": "eth1",
                "dhcp4": False,
                "addresses": ["10.2.0.2/24"],
            },
        },
    }


def test_without_user_data_cloud_init_has_nothing_to_do() -> None:
    found = files(Seed("abc", "web"))
    assert found[f"{DIRECTORY}/user-data"].startswith("#cloud-config\n")
    assert read(found, "network-config") == {"version": 2, "ethernets": {}}


def test_without_a_way_out_there_is_one_to_the_metadata() -> None:
    nic = Nic("02:2", "10.2.0.2", 24, metadata="10.2.0.1")
    [interface] = read(files(Seed("abc", "web", (nic,))), "network-config")["ethernets"].values()
    assert interface["routes"] == [{"to": "169.254.169.254/32", "via": "10.2.0.1"}]


@pytest.mark.parametrize("text", ["", SECRET, "#!/bin/sh\n", "Content-Type: multipart/mixed\n"])
def test_user_data_of_every_kind_is_taken(text: str) -> None:
    check_seed(text, (KEY, KEY.replace("ssh-ed25519", "ecdsa-sha2-nistp256").split(" me@")[0]))


@pytest.mark.parametrize(
    ("text", "keys", "says"),
    [
        ("users: [me]\n", (), "pass over"),
        ("#cloud-config\n" + "x" * MAX_USER_DATA, (), "larger than 256 KiB"),
        ("", ("-----BEGIN OPENSSH PRIVATE KEY-----",), "no public key"),
        ("", ('command="reboot" ' + KEY,), "no public key"),
        ("", (KEY + "\n" + KEY,), "no public key"),
        ("", ("ssh-ed25519 AAAA",), "no public key"),
    ],
)
def test_what_would_do_nothing_is_refused(text: str, keys: tuple[str, ...], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        check_seed(text, keys)
    assert caught.value.hint
    assert "AAAA" not in str(caught.value)


def test_only_a_vm_has_a_seed() -> None:
    vm = {"image": "a", "isolation": Isolation.VM, "cpus": 1.0, "memory": 1 << 30}
    check_spec(InstanceSpec(user_data=SECRET, ssh_keys=(KEY,), **vm))
    for given in ({"user_data": SECRET}, {"ssh_keys": (KEY,)}):
        with pytest.raises(InvalidArgument, match="are for VMs"):
            check_spec(InstanceSpec(image="a", cpus=1.0, memory=1 << 30, **given))


# Keeping


def instance(instance_id: str = "abc", **spec: Any) -> Instance:
    return Instance(
        id=instance_id,
        name="web",
        image="a",
        digest="sha256:1",
        spec=InstanceSpec("a", **spec),
        slot=1,
        state=State.STOPPED,
        created=1.0,
    )


def test_user_data_is_kept_beside_the_row_for_root_alone(tmp_path: Path) -> None:
    with seeds.kept(tmp_path, instance(user_data=SECRET)) as row:
        assert row.spec.user_data == ""
    file = tmp_path / "instances/abc/user-data"
    assert file.read_text() == SECRET
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = seeds.files(tmp_path, row, ImageConfig(), NICS, "web", "")
    assert found[f"{DIRECTORY}/user-data"] == SECRET
    seeds.inherit(tmp_path, "abc", "def")
    found = seeds.files(tmp_path, instance("def"), ImageConfig(), NICS, "web", "")
    assert found[f"{DIRECTORY}/user-data"] == SECRET
    assert read(found, "meta-data")["instance-id"] == "i-def"


def test_a_row_that_cannot_be_written_leaves_no_user_data(tmp_path: Path) -> None:
    with (
        pytest.raises(NameInUse),
        seeds.kept(tmp_path, instance(user_data=SECRET)),
    ):
        raise NameInUse("taken")
    assert list((tmp_path / "instances").iterdir()) == []


def test_only_disks_and_who_asks_for_it_get_a_seed(tmp_path: Path) -> None:
    disk = ImageConfig(labels={LABEL_DISK: Disk(1 << 30).label()})
    assert seeds.files(tmp_path, instance(), ImageConfig(), NICS, "web", "") == {}
    assert seeds.files(tmp_path, instance(), disk, NICS, "web", "")
    assert seeds.files(tmp_path, instance(ssh_keys=(KEY,)), ImageConfig(), (), "web", "")
    seeds.inherit(tmp_path, "abc", "def")
    assert not (tmp_path / "instances").exists()
