"""`sublet browse`: real pages in a real Chromium, and, in the slow tier, in others."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import BASE, Sublet, eventually
from PIL import Image
from webpage import served
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request, TextMessage

pytestmark = pytest.mark.timeout(900)  # its image is built

CHROMIUM = "chromium:bookworm"


def made(sublet: Sublet, image: str) -> Sublet:
    """The daemon, with the catalogue's image of a browser."""
    outcome = sublet("run", "--rm", image, timeout=900)
    assert outcome.code == 0, outcome
    return sublet


@pytest.fixture(scope="module")
def chromium(shared: Sublet) -> Sublet:
    return made(shared, CHROMIUM)


@pytest.fixture
def browser(chromium: Sublet) -> Iterator[Sublet]:
    yield chromium
    chromium.clean()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served() as port:
        yield port


def pixels(file: Path | bytes) -> Image.Image:
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
        return picture.convert("RGB")


def text_of(pdf: Path) -> str:
    return subprocess.run(
        ["pdftotext", str(pdf), "-"], capture_output=True, text=True, check=True, timeout=30
    ).stdout


def test_a_page_of_this_host_as_picture_and_pdf(browser: Sublet, port: int, tmp_path: Path) -> None:
    png, pdf = tmp_path / "a.png", tmp_path / "a.pdf"
    found = browser.json(
        *("browse", f"localhost:{port}/moved", "--screenshot", str(png), "--pdf", str(pdf)),
        *("--size", "640x480", "--json"),
    )
    assert found["title"] == "The red one"
    assert (found["url"], found["status"]) == (f"http://localhost:{port}/", 200)
    assert found["browser"].startswith("Chromium ")
    assert (found["screenshot"], found["pdf"], found["warnings"]) == (str(png), str(pdf), [])
    picture = pixels(png)
    assert picture.size == (640, 480)
    assert picture.getpixel((600, 400)) == (255, 0, 0)
    assert len(picture.crop((0, 0, 320, 100)).getcolors() or ()) > 10  # letters
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert "Hello from red" in text_of(pdf)
    assert browser.json("ps", "-a", "--json") == []


def test_the_whole_page_dark_and_in_many_pixels(browser: Sublet, port: int, tmp_path: Path) -> None:
    png = tmp_path / "a.png"
    flags = ("--full-page", "--dark", "--scale", "2", "--size", "320x200")
    browser.ok("browse", f"http://[::1]:{port}/", *flags, "--screenshot", str(png))
    picture = pixels(png)
    assert picture.size == (640, 4000)
    assert picture.getpixel((600, 3900)) == (0, 0, 128)


def test_what_the_page_waits_for_and_who_asks(browser: Sublet, port: int, tmp_path: Path) -> None:
    png = str(tmp_path / "a.png")
    late = browser.json(
        *("browse", f"localhost:{port}/late", "--wait-for", "#ready", "--screenshot", png, "--json")
    )
    assert late["title"] == "late"
    asks = browser.json("browse", f"localhost:{port}/asks", "--screenshot", png, "--json")
    assert asks["title"] == "asks"
    agent = browser.json("browse", f"localhost:{port}/agent", "--screenshot", png, "--json")
    assert "Chrome/" in agent["title"]
    assert "Headless" not in agent["title"]


def test_a_page_that_the_server_refuses_is_shown_and_said(
    browser: Sublet, port: int, tmp_path: Path
) -> None:
    png = tmp_path / "a.png"
    done = browser("browse", f"localhost:{port}/gone", "--screenshot", str(png))
    assert (done.code, done.out) == (0, f"{png}\n")
    assert f"warning: {CHROMIUM}: The server answered 404." in done.err
    assert pixels(png).getpixel((600, 400)) == (255, 0, 0)


def test_errors_are_sentences(browser: Sublet, port: int, tmp_path: Path) -> None:
    png = ("--screenshot", str(tmp_path / "a.png"))
    refused = browser("browse", "localhost:1234", *png)
    assert refused.code == 1
    assert "nothing answers at port 1234 of this host's loopback" in refused.err
    unknown = browser("browse", "http://no-such-host.invalid/", *png)
    assert "its host name is not known" in unknown.err
    plain = browser("browse", f"https://localhost:{port}/", *png)
    assert "speaks no HTTPS" in plain.err
    slow = browser("browse", f"localhost:{port}/slow", *png, "--timeout", "2s")
    assert "did not finish within 2 s" in slow.err
    never = browser("browse", f"localhost:{port}/", *png, "--timeout", "15s", "--wait-for", "#no")
    assert "nothing matches '#no'" in never.err
    wrong = browser("browse", f"localhost:{port}/", *png, "--wait-for", "##")
    assert "'##' is no CSS selector" in wrong.err
    download = browser("browse", f"localhost:{port}/file", *png)
    assert "leads to a download" in download.err
    nowhere = browser("browse", "localhost:1", "--screenshot", "/no/such/place/a.png")
    assert "cannot be made" in nowhere.err
    assert not (tmp_path / "a.png").exists()


def test_the_picture_has_a_name_of_its_own(browser: Sublet, port: int, tmp_path: Path) -> None:
    program = browser.spawn("browse", f"localhost:{port}", cwd=tmp_path)
    out, err = program.communicate(timeout=120)
    assert (program.returncode, out) == (0, f"localhost-{port}.chromium-bookworm.png\n"), err
    assert pixels(tmp_path / out.strip()).size == (1280, 800)


class DevTools:
    """A client of the DevTools protocol, as Playwright is one: over a WebSocket of this host."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        assert parts.port
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        self.protocol = WSConnection(ConnectionType.CLIENT)
        hello = Request(host=parts.netloc, target=parts.path)
        self.socket.sendall(self.protocol.send(hello))
        self.number = 0

    def __call__(self, method: str, session: str = "", **params: object) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        text = ""
        if self.number == 1:
            self.take()  # the handshake's answer
        self.socket.sendall(self.protocol.send(TextMessage(json.dumps(message))))
        while True:
            for event in self.take():
                if isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        answer, text = json.loads(text), ""
                        if answer.get("id") == self.number:
                            return dict(answer["result"])

    def take(self) -> list[object]:
        self.protocol.receive_data(self.socket.recv(65536))
        return list(self.protocol.events())


def test_a_program_of_this_host_drives_it_and_nobody_elses(browser: Sublet, port: int) -> None:
    flags = ("--cdp", "-d", "--ttl", "10m", "--json")
    found = browser.json("browse", f"localhost:{port}", *flags)
    with urllib.request.urlopen(f"{found['url']}/json/list", timeout=30) as answer:
        assert f"http://localhost:{port}/" in [page["url"] for page in json.load(answer)]
    tools = DevTools(found["websocket"])
    targets = tools("Target.getTargets")["targetInfos"]
    [page] = [target for target in targets if target["url"] == f"http://localhost:{port}/"]
    attached = tools("Target.attachToTarget", targetId=page["targetId"], flatten=True)
    script = "document.querySelector('h1')?.innerText"

    def said() -> object:
        answer = tools("Runtime.evaluate", attached["sessionId"], expression=script)
        return answer["result"].get("value")

    eventually(lambda: said() == "Hello from red", "the page is there")
    tools.socket.close()

    address = browser.json("inspect", found["id"])["address"]
    ask = "exec 3<>/dev/tcp/$0/$1 && printf 'GET /json/version HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    for inner in ("9222", "9223"):
        other = browser("run", "--rm", BASE, "bash", "-c", ask, address, inner)
        assert "DevTools" not in other.out + other.err
    gateway = address.rpartition(".")[0] + ".1"
    outer = found["url"].rpartition(":")[2]
    knock = ("timeout", "3", "bash", "-c", ask, gateway, outer)  # nothing answers it at all
    assert browser("run", "--rm", BASE, *knock).code == 124

    look = "for p in /proc/[0-9]*; do echo $(readlink $p/ns/user) $(tr '\\0' ' ' <$p/cmdline); done"
    rows = browser.ok("exec", found["id"], "sh", "-c", look).splitlines()
    rows = [row for row in rows if "/chromium/chromium " in row]
    outer_spaces = {row.split()[0] for row in rows if "--type=" not in row}
    inner_spaces = {row.split()[0] for row in rows if "--type=renderer" in row}
    assert outer_spaces
    assert inner_spaces
    assert not outer_spaces & inner_spaces  # its own sandbox is there
    assert not any("--no-sandbox" in row for row in rows)


def test_in_the_foreground_it_lasts_as_long_as_the_command(browser: Sublet) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        program = browser.spawn("browse", "--cdp")
        assert program.stdout
        url = program.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/json/version", timeout=30) as answer:
            assert "Chrome/" in json.load(answer)["Browser"]
        assert len(browser.json("ps", "--json")) == 1
        program.send_signal(number)
        _, err = program.communicate(timeout=60)
        if number is signal.SIGINT:
            assert program.returncode == 0, err
            assert "Deleted." in err
        eventually(lambda: browser.json("ps", "-a", "--json") == [], "it is deleted")


def test_a_picture_that_is_interrupted_leaves_nothing(browser: Sublet, port: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        program = browser.spawn("browse", f"localhost:{port}/slow", "--screenshot", "/tmp/no.png")
        eventually(lambda: browser.json("ps", "--json"), "the browser runs")
        program.send_signal(number)
        program.communicate(timeout=60)
        assert program.returncode == (-9 if number is signal.SIGKILL else 130)
        eventually(lambda: browser.json("ps", "-a", "--json") == [], "it is deleted")


def test_what_does_not_go_together_is_said(browser: Sublet) -> None:
    firefox = browser("browse", "--cdp", "--browser", "firefox-esr:bookworm")
    assert "--cdp is Chromium's protocol" in firefox.err
    assert "--pdf does not go with --cdp" in browser("browse", "--cdp", "--pdf", "a.pdf").err
    assert "are for --cdp" in browser("browse", "localhost:1", "-d").err
    assert "no URL of a page" in browser("browse").err
    assert "no browser that is known" in browser("browse", "localhost:1", "--browser", BASE).err


@pytest.mark.slow
@pytest.mark.parametrize("image", ["chromium:trixie", "firefox-esr:bookworm"])
def test_other_browsers(sublet: Sublet, port: int, tmp_path: Path, image: str) -> None:
    made(sublet, image)
    png, pdf = tmp_path / "a.png", tmp_path / "a.pdf"
    flags = ("--screenshot", str(png), "--pdf", str(pdf), "--size", "640x480", "--dark")
    found = sublet.json("browse", f"localhost:{port}/moved", *flags, "--browser", image, "--json")
    assert (found["title"], found["status"]) == ("The red one", 200)
    assert found["browser"].split()[0].lower() in image
    assert pixels(png).size == (640, 480)
    assert pixels(png).getpixel((600, 400)) == (0, 0, 128)
    assert "Hello from red" in text_of(pdf)
    gone = sublet("browse", f"localhost:{port}/gone", *flags[:2], "--browser", image)
    assert "The server answered 404." in gone.err
    refused = sublet("browse", "localhost:1234", *flags[:2], "--browser", image)
    assert "nothing answers at port 1234" in refused.err
    unknown = sublet("browse", "http://no-such-host.invalid/", *flags[:2], "--browser", image)
    assert "its host name is not known" in unknown.err


@pytest.mark.slow
def test_two_browsers_and_what_differs(browser: Sublet, port: int, tmp_path: Path) -> None:
    made(browser, "firefox-esr:bookworm")
    png = tmp_path / "a.png"
    pair = ("--compare", CHROMIUM, "firefox-esr:bookworm", "--size", "400x300")
    done = browser("browse", f"localhost:{port}", *pair, "--screenshot", str(png), "--json")
    found = json.loads(done.out)
    assert [page["browser"].split()[0] for page in found["pages"]] == ["Chromium", "Firefox"]
    assert found["pixels"] == 400 * 300
    assert 0 < found["share"] < 0.2  # letters alone
    assert found["differing"] == round(found["share"] * found["pixels"])
    picture = pixels(png)
    assert picture.size == (3 * 400 + 16, 300 + 28)
    assert picture.getpixel((390, 300)) == picture.getpixel((798, 300)) == (255, 0, 0)
    same = ("--compare", CHROMIUM, CHROMIUM, "--size", "400x300", "--screenshot", str(png))
    assert browser.ok("browse", f"localhost:{port}", *same).startswith("0.00 % of the pixels")
