"""What URLs, browsers and windows mean, and what is counted where two pictures differ."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from sublet.browser.failures import unreachable
from sublet.browser.picture import compare
from sublet.cli.browse_files import write
from sublet.domain.browsing import Kind, Page, file_name, kind_of, page_of, window_of
from sublet.domain.errors import BrowserFailed, InvalidArgument
from sublet.domain.host_ports import check_host_ports


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("localhost:3000", Page("http://localhost:3000", 3000, "localhost-3000")),
        ("http://localhost/a?b#c", Page("http://localhost/a?b#c", 80, "localhost")),
        ("https://127.0.0.1/", Page("https://127.0.0.1/", 443, "127.0.0.1")),
        ("app.localhost:8080/x", Page("http://app.localhost:8080/x", 8080, "app.localhost-8080")),
        ("http://[::1]:3000/a", Page("http://localhost:3000/a", 3000, "localhost-3000")),
        ("http://0.0.0.0:8000/", Page("http://localhost:8000/", 8000, "localhost-8000")),
        ("https://example.org/", Page("https://example.org/", 0, "example.org")),
        ("example.org", Page("http://example.org", 0, "example.org")),
        ("http://127.0.0.1.example.org/", Page("http://127.0.0.1.example.org/", 0,
                                               "127.0.0.1.example.org")),
        ("about:blank", Page("about:blank", 0, "about")),
        ("data:text/html,a", Page("data:text/html,a", 0, "data")),
    ],
)  # fmt: skip
def test_pages(text: str, page: Page) -> None:
    assert page_of(text) == page


@pytest.mark.parametrize(
    "text",
    ["", " ", "file:///etc/passwd", "ftp://a/", "http://", "http://a:99999/", "http://[::1", "a b",
     "javascript:alert(1)", "chrome://version", "http://a\n/"],
)  # fmt: skip
def test_what_is_no_page(text: str) -> None:
    with pytest.raises(InvalidArgument, match="no URL of a page"):
        page_of(text)


def test_browsers_are_known_by_the_name_of_the_image() -> None:
    assert kind_of("chromium:trixie") is Kind.CHROMIUM
    assert kind_of("docker.io/library/firefox-esr:140") is Kind.FIREFOX
    with pytest.raises(InvalidArgument, match="no browser"):
        kind_of("chromium.example.org/postgres:15")
    page = page_of("localhost:3000")
    assert file_name(page, "a.org/me/chromium:bookworm") == "localhost-3000.chromium-bookworm"


@pytest.mark.parametrize("text", ["", "1280", "0x0", "20000x10", "-1x5", "axb", "1280X800"])
def test_windows(text: str) -> None:
    assert window_of("1280x800") == (1280, 800)
    with pytest.raises(InvalidArgument, match="no size of a window"):
        window_of(text)


def test_host_ports() -> None:
    check_host_ports([80, 65535], vm=False, network="none")
    check_host_ports([], vm=True, network="host")
    for ports, vm, network, why in [
        ([80], True, "", "for containers"),
        ([80], False, "host", "--network host"),
        ([80], False, "container:db", "--network container:db"),
        ([0], False, "", "0 is not a port"),
        ([80, 80], False, "", "16 different"),
        (list(range(1, 18)), False, "", "16 different"),
    ]:
        with pytest.raises(InvalidArgument, match=why):
            check_host_ports(ports, vm=vm, network=network)


def picture(size: tuple[int, int], *dots: tuple[int, int]) -> bytes:
    made = Image.new("RGB", size, (200, 200, 200))
    for dot in dots:
        made.putpixel(dot, (200, 201, 200))
    written = io.BytesIO()
    made.save(written, "PNG")
    return written.getvalue()


def test_every_pixel_that_differs_by_anything_is_counted() -> None:
    found = compare(picture((40, 30)), picture((40, 30), (0, 0), (39, 29)), ("A", "B"))
    assert (found.pixels, found.differing) == (1200, 2)
    with Image.open(io.BytesIO(found.picture)) as whole:
        shown = whole.convert("RGB")
    assert shown.size == (3 * 40 + 2 * 8, 30 + 28)
    assert shown.getpixel((2 * 48, 28)) == shown.getpixel((2 * 48 + 39, 28 + 29)) == (220, 0, 60)
    assert shown.getpixel((2 * 48 + 5, 28 + 5)) == (241, 241, 241)
    assert compare(picture((4, 4)), picture((4, 4)), ("", "")).share == 0


def test_where_one_picture_ends_the_other_differs_from_white() -> None:
    found = compare(picture((10, 10)), picture((10, 20)), ("A", "B"))
    assert (found.pixels, found.differing) == (200, 100)


@pytest.mark.parametrize("data", [b"", b"GIF89a\1\0\1\0\0\0\0;", picture((4, 4))[:30]])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(BrowserFailed, match="cannot be read"):
        compare(data, picture((4, 4)), ("A", "B"))


@pytest.mark.parametrize(
    ("url", "problem", "says"),
    [
        ("http://a.org/", "net::ERR_NAME_NOT_RESOLVED", "its host name is not known"),
        ("http://a.org/", "Error: NS_ERROR_UNKNOWN_HOST", "its host name is not known"),
        ("http://a.org/", "net::ERR_CONNECTION_REFUSED", "nothing listens there"),
        ("http://localhost:81/", "net::ERR_CONNECTION_RESET", "nothing answers at port 81"),
        ("http://localhost:81/", "net::ERR_EMPTY_RESPONSE", "nothing answers at port 81"),
        ("http://localhost:81/", "NS_ERROR_NET_RESET", "nothing answers at port 81"),
        ("https://localhost/", "net::ERR_CERT_AUTHORITY_INVALID", "--insecure"),
        ("https://a.org/", "MOZILLA_PKIX_ERROR_SELF_SIGNED_CERT", "--insecure"),
        ("https://localhost/", "net::ERR_SSL_PROTOCOL_ERROR", "speaks no HTTPS"),
        ("https://a.org/", "SSL_ERROR_RX_RECORD_TOO_LONG", "speaks no HTTPS"),
        ("http://a.org/", "net::ERR_SOMETHING_NEW", "net::ERR_SOMETHING_NEW"),
        ("http://a.org/", "", "no reason was told"),
    ],
)
def test_what_browsers_say_is_put_in_words(url: str, problem: str, says: str) -> None:
    assert says in str(unreachable(url, problem))


def test_a_picture_is_written_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("here")
    for name in ("a.png.partial", "a.png"):
        (tmp_path / name).symlink_to("precious")
    write(str(tmp_path / "a.png"), b"picture")
    assert sorted(os.listdir(tmp_path)) == ["a.png", "precious"]
    assert (tmp_path / "precious").read_text() == "here"
    assert (tmp_path / "a.png").read_bytes() == b"picture"
