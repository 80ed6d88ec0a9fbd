"""Pure parts of builds, pulls and packing: manifests, calls, layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sublet.domain.config import Config
from sublet.domain.errors import CorruptImage, DiskFull, NoSuchImage, PullFailed
from sublet.domain.image import ImageConfig
from sublet.domain.reference import Reference
from sublet.domain.suites import Suite
from sublet.drivers import squashfs
from sublet.drivers.confine import confined
from sublet.drivers.registry import buildah, debian, layout, manifest, skopeo
from sublet.drivers.registry.store import BuildStore

DIGEST = "sha256:" + "a" * 64


def test_choose_by_platform() -> None:
    index = {
        "manifests": [
            {"digest": "sha256:" + "b" * 64, "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": DIGEST, "platform": {"os": "linux", "architecture": "amd64"}},
        ]
    }
    assert manifest.choose(index, "amd64") == DIGEST
    with pytest.raises(NoSuchImage, match="linux/riscv64"):
        manifest.choose(index, "riscv64")
    assert manifest.choose({"manifests": [{"digest": DIGEST}]}, "amd64") == DIGEST


@pytest.mark.parametrize(
    "digest",
    ["", None, 5, "sha256:../../etc/passwd", "sha256:" + "A" * 64, DIGEST + "/../x", [DIGEST]],
)
def test_malformed_digests_are_refused(digest: object) -> None:
    with pytest.raises(CorruptImage):
        manifest.checked(digest)
    with pytest.raises(CorruptImage):
        manifest.blobs({"config": {"digest": DIGEST}, "layers": [{"digest": digest}]})
    with pytest.raises(CorruptImage):
        manifest.choose({"manifests": [{"digest": digest}]}, "amd64")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"schemaVersion":1}', b"[" * 100000])
def test_malformed_manifests_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptImage):
        manifest.parse(data)


@pytest.mark.parametrize(
    ("registry", "loopback"),
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("localhost.example:5000", False),
        ("docker.io", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_loopback_registries(registry: str, loopback: bool) -> None:
    assert skopeo.is_loopback(registry) is loopback


@pytest.mark.parametrize(
    ("stderr", "error"),
    [
        ("reading manifest: manifest unknown: manifest unknown", NoSuchImage),
        ("requested access to the resource is denied", NoSuchImage),
        ("dial tcp: lookup x: no such host", PullFailed),
        ("context deadline exceeded", PullFailed),
        ("write /x: no space left on device", DiskFull),
    ],
)
def test_registry_errors(stderr: str, error: type[Exception]) -> None:
    assert type(skopeo._translated(stderr, Reference.parse("r.example/x:1"))) is error


def test_build_argv(tmp_path: Path) -> None:
    store = BuildStore(Config(root=Path("/r"), run=Path("/u")))
    recipe = buildah.Recipe(Path("/ctx"), "", Path("/ctx/x.dockerignore"), {"A": "b"})
    argv = buildah.build_argv(store, recipe, Path("/t/file"), Path("/t/id"))
    assert argv[: argv.index("build")] == [
        *"buildah --root /var/lib/containers/graph".split(),
        *"--runroot /var/lib/containers/run/storage --storage-driver overlay".split(),
    ]
    assert argv[argv.index("--iidfile") :] == [
        *"--iidfile /t/id --pull=never --ignorefile /ctx/x.dockerignore".split(),
        *"--build-arg=A=b --file /t/file /ctx".split(),
    ]


def test_failed_builds_name_the_step() -> None:
    lines = [
        "STEP 2/2: RUN false",
        "nothing works",
        'Error: building at STEP "RUN false": while running runtime: exit status 1',
    ]
    error = buildah._failed(lines, debian_error())
    assert "RUN false" in error.message
    assert error.hint == "The last output was: nothing works"


def debian_error() -> buildah.ProcessFailed:
    return buildah.ProcessFailed("buildah failed (1): it said nothing")


def test_bootstrap_argv() -> None:
    plan = debian.Plan(Suite("debian", "sid"), ("deb http://m sid main",))
    argv = debian.bootstrap_argv(plan, Path("/k.gpg"), Path("/a b"))
    assert argv[:4] == ["mmdebstrap", "--variant=minbase", "--format=tar", "--keyring=/k.gpg"]
    assert "--customize-hook=copy-in '/a b/apt-clean' /etc/apt/apt.conf.d/" in argv
    assert argv[-3:] == ["sid", "-", "deb http://m sid main"]


def test_confined_argv() -> None:
    argv = confined(["tool"], readable={"/input": "/x"}, writable={"/output": "/y"})
    text = " ".join(argv)
    assert argv[0] == "bwrap"
    assert "--unshare-net" in argv
    assert "--ro-bind /x /input" in text
    assert "--bind /y /output" in text
    assert text.endswith(
        "-- setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs -- tool"
    )


def test_mksquashfs_argv() -> None:
    argv = squashfs.directory_argv(Path("/tree"), Path("/out"), 36864, 5)
    assert argv[-2:] == ["-mkfs-time", "5"]
    assert argv[argv.index("-offset") + 1] == "36864"
    assert "--bounding-set=-sys_admin" in argv


def test_a_history_of_one_layer() -> None:
    steps = [{"created_by": "a"}, {"created_by": "b", "empty_layer": True}]
    assert layout.one_layer(steps, "") == [
        {"created_by": "a", "empty_layer": True},
        {"created_by": "b"},
    ]
    again = layout.one_layer(layout.one_layer(steps, ""), "")
    assert again == layout.one_layer(steps, "")
    assert layout.one_layer(None, "now") == [{"created": "now", "created_by": "sublet"}]


def test_layout_names_its_blobs(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.write_bytes(b"tar")
    directory = tmp_path / "layout"
    identity = layout.write(directory, layer, ImageConfig(cmd=("x",)))
    index = json.loads((directory / "index.json").read_text())
    blobs = directory / "blobs" / "sha256"
    found = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    assert manifest.blobs(found)[0] == f"sha256:{identity}"
    assert skopeo.is_layout(directory)
    for path in blobs.iterdir():
        assert manifest.digest_of(path.read_bytes()) == f"sha256:{path.name}"
