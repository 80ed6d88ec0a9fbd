"""Pure parts of builds, pulls and packing: manifests, calls, layouts."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from sublet.domain import config as settings
from sublet.domain.config import Config
from sublet.domain.errors import (
    CorruptImage,
    DiskFull,
    InvalidArgument,
    NoSuchImage,
    PullFailed,
    UntrustedRegistry,
)
from sublet.domain.image import ImageConfig
from sublet.domain.reference import Reference, parse_registry
from sublet.domain.suites import Suite
from sublet.drivers import squashfs
from sublet.drivers.confine import confined
from sublet.drivers.registry import (
    access,
    buildah,
    challenge,
    debian,
    layout,
    manifest,
    skopeo,
    trouble,
)
from sublet.drivers.registry.downloads import Downloads
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


@pytest.mark.parametrize("size", [None, -1, "5", 1.5, True, 1 << 50, [1]])
def test_malformed_sizes_are_refused(size: object) -> None:
    config = {"digest": DIGEST, "size": 5}
    with pytest.raises(CorruptImage, match="the size"):
        manifest.blobs({"config": config, "layers": [{"digest": DIGEST, "size": size}]})
    with pytest.raises(CorruptImage, match="layers"):
        manifest.blobs({"config": config, "layers": [config] * 501})


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
    assert access.is_loopback(registry) is loopback


@pytest.mark.parametrize(
    ("stderr", "error"),
    [
        ("reading manifest: manifest unknown: manifest unknown", NoSuchImage),
        ("requested access to the resource is denied", NoSuchImage),
        ("dial tcp: lookup x: no such host", PullFailed),
        ("context deadline exceeded", PullFailed),
        ("write /x: no space left on device", DiskFull),
        ("x509: certificate signed by unknown authority", UntrustedRegistry),
        ("x509: certificate has expired or is not yet valid: now", UntrustedRegistry),
        ("x509: certificate is valid for a.example, not r.example", UntrustedRegistry),
        ("http: server gave HTTP response to HTTPS client", UntrustedRegistry),
    ],
)
def test_registry_errors(stderr: str, error: type[Exception]) -> None:
    assert type(trouble.of_pull(stderr, "r.example", "r.example/x:1")) is error


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


@pytest.mark.parametrize(
    ("line", "noise"),
    [
        ("(Reading database ...", True),
        ("(Reading database ... 45%", True),
        ("(Reading database ... 8134 files and directories currently installed.)", False),
        (
            'time="2026-11-29T01:19:14Z" level=error msg="Failed to remove cgroup" error="busy"',
            True,
        ),
        ('time="2026-11-29T01:19:14Z" level=error msg="Failed to remove paths: map[:/sys]"', True),
        ('time="2026-11-29T01:19:14Z" level=error msg="exit status 1"', False),
        ("STEP 2/2: RUN false", False),
    ],
)
def test_lines_of_a_build_that_tell_nothing(line: str, noise: bool) -> None:
    assert bool(buildah._NOISE.match(line)) is noise


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
    identity = layout.write(directory, layout.plain(layer), ImageConfig(cmd=("x",)))
    index = json.loads((directory / "index.json").read_text())
    blobs = directory / "blobs" / "sha256"
    found = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    assert manifest.blobs(found)[0].digest == f"sha256:{identity}"
    assert skopeo.is_layout(directory)
    for path in blobs.iterdir():
        assert manifest.digest_of(path.read_bytes()) == f"sha256:{path.name}"


def test_layers_are_compressed_reproducibly(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        reader, writer = os.pipe()
        os.write(writer, b"archive")
        os.close(writer)
        made.append(layout.compress(reader, tmp_path / name))
    assert made[0].digest == made[1].digest
    assert made[0].diff_id == manifest.digest_of(b"archive")
    assert gzip.decompress((tmp_path / "a").read_bytes()) == b"archive"


BEARER = (
    'Bearer realm="https://auth.example/token?a=b",service="r.example",scope="repository:x:pull"'
)


def test_challenges() -> None:
    found = challenge.parse(BEARER)
    assert found.scheme == "bearer"
    url = challenge.token_url(found, "team/x", plain=False)
    assert url == "https://auth.example/token?a=b&scope=repository%3Ax%3Apull&service=r.example"
    bare = challenge.parse("Bearer realm=https://auth.example/t")
    url = challenge.token_url(bare, "team/x", plain=False)
    assert url == "https://auth.example/t?scope=repository%3Ateam%2Fx%3Apull"
    assert challenge.parse('Basic realm="a \\"b\\""').parameters == {"realm": 'a "b"'}
    assert challenge.parse("").scheme == ""


@pytest.mark.parametrize(
    "realm",
    ["http://auth.example/t", "file:///etc/passwd", "", "https://", "https://u@h/t", "https://[x"],
)
def test_realms_that_get_no_credentials(realm: str) -> None:
    found = challenge.Challenge("bearer", {"realm": realm})
    assert challenge.token_url(found, "x", plain=False) is None


@pytest.mark.parametrize(
    ("answer", "token"),
    [
        (b'{"token": "abc"}', "abc"),
        (b'{"access_token": "abc"}', "abc"),
        (b'{"token": "a\\nb"}', ""),
        (b'{"token": 5}', ""),
        (b"[]", ""),
        (b"", ""),
    ],
)
def test_tokens(answer: bytes, token: str) -> None:
    assert challenge.token_of(answer) == token


def test_credentials_by_the_most_particular_place(tmp_path: Path) -> None:
    credentials = access.Credentials(tmp_path)
    reference = Reference.parse("r.example:5000/team/app@" + DIGEST)
    assert credentials.basic(reference) == ""
    assert credentials.access("r.example").flags() == ["--authfile", str(tmp_path / "auth.json")]
    assert (tmp_path / "auth.json").stat().st_mode & 0o777 == 0o600
    assert credentials.basic(reference) == ""
    auths = {"r.example:5000": {"auth": "YTpi"}, "r.example:5000/team": {"auth": "Yzpk"}}
    (tmp_path / "auth.json").write_text(json.dumps({"auths": auths}))
    assert credentials.basic(reference) == "Yzpk"
    assert credentials.basic(Reference.parse("r.example:5000/other:1")) == "YTpi"
    assert credentials.basic(Reference.parse("r.example/team/app")) == ""
    (tmp_path / "auth.json").write_text('{"auths": {"r.example:5000": {"auth": "\\n: x"}}}')
    assert credentials.basic(Reference.parse("r.example:5000/other:1")) == ""


def test_downloads_are_bounded(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    digests = [f"sha256:{character * 64}" for character in "abc"]
    with downloads.using(digests):
        for age, digest in enumerate(digests):
            downloads.part(digest).write_bytes(bytes(8192))
            os.utime(downloads.part(digest), (age + 1, age + 1))
        assert downloads.trim(size=0) == 0
        assert (downloads.usage().active, downloads.reclaimable()) == (3, 0)
    assert downloads.trim(seconds=1e12, size=2 * 8192) == 8192
    assert [downloads.part(digest).exists() for digest in digests] == [False, True, True]
    with downloads.using(digests[1:2]):  # older than a week, all of them
        assert not downloads.part(digests[2]).exists()


def test_a_blob_without_its_digest_goes(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    with downloads.using([DIGEST]):
        downloads.part(DIGEST).write_bytes(b"x")
        with pytest.raises(CorruptImage, match="does not have its digest"):
            downloads.keep(DIGEST)
        right = manifest.digest_of(b"x")
        downloads.part(right).write_bytes(b"x")
        downloads.keep(right)
        assert downloads.blob(right).read_bytes() == b"x"
    assert not downloads.part(DIGEST).exists()


def test_mirrors() -> None:
    text = "docker.io=m.example:5000/hub/, ghcr.io=m.example"
    config = settings.load({"mirrors": text}, {})
    assert config.mirrors_of("docker.io") == ["m.example:5000/hub"]
    assert config.mirrors_of("quay.io") == []
    mirrored = Reference.parse("debian:12").via("m.example:5000/hub")
    assert mirrored.qualified == "m.example:5000/hub/library/debian:12"
    assert mirrored.registry == "m.example:5000"
    for wrong in ("docker.io", "docker.io=-x", "a b=c", "docker.io=m/../x y"):
        with pytest.raises(InvalidArgument):
            settings.load({"mirrors": wrong}, {})


@pytest.mark.parametrize(
    ("text", "registry"),
    [
        ("", "docker.io"),
        ("https://r.example:5000/", "r.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("--help", None),
        ("a/b", None),
        ("..", None),
    ],
)
def test_registries_by_name(text: str, registry: str | None) -> None:
    if registry is None:
        with pytest.raises(InvalidArgument):
            parse_registry(text)
    else:
        assert parse_registry(text) == registry
