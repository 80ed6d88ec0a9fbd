"""Services: names, what images offer, URLs, variables."""

from __future__ import annotations

from typing import Any

import pytest

from sublet.domain import services
from sublet.domain.errors import InvalidArgument
from sublet.domain.services import Running, Wanted

LABELLED: dict[str, Any] = {
    "Env": ["PATH=/bin", "APP_USER=me", "APP_PASSWORD=a=b"],
    "ExposedPorts": {"9000/tcp": {}},
    "Labels": {
        "io.sublet.service": "app",
        "io.sublet.port": "7000",
        "io.sublet.url": "app://{APP_USER}:{APP_PASSWORD}@{host}:{port}/",
    },
}


@pytest.mark.parametrize(
    ("text", "name", "prefix", "image"),
    [
        ("postgres:15", "postgres", "POSTGRES", "postgres:15"),
        ("docker.io/library/postgres", "postgres", "POSTGRES", "docker.io/library/postgres"),
        ("registry:5000/team/my.db:1", "my-db", "MY_DB", "registry:5000/team/my.db:1"),
        ("redis@sha256:" + "0" * 64, "redis", "REDIS", "redis@sha256:" + "0" * 64),
        ("main-db=postgres:15", "main-db", "MAIN_DB", "postgres:15"),
        ("/srv/images/cache.sif", "cache", "CACHE", "/srv/images/cache.sif"),
        ("3scale:2", "_3scale", "_3SCALE", "3scale:2"),
    ],
)
def test_a_service_has_a_name(text: str, name: str, prefix: str, image: str) -> None:
    found = services.parse(text)
    assert (found, found.prefix) == (Wanted(name, image), prefix)


@pytest.mark.parametrize("text", ["", "=postgres", "db=", "a b=postgres", "1=postgres", ":15"])
def test_what_is_no_service(text: str) -> None:
    with pytest.raises(InvalidArgument):
        services.parse(text)


def test_two_services_need_two_names() -> None:
    both = services.parse_all(["postgres:15", "old=postgres:13"])
    assert [each.name for each in both] == ["postgres", "old"]
    for other in ("postgres:13", "POSTGRES=redis:7"):
        with pytest.raises(InvalidArgument, match="POSTGRES_HOST"):
            services.parse_all(["postgres:15", other])
    with pytest.raises(InvalidArgument):
        services.parse_all(["postgres:15", "postgres:15"])


def test_settings_are_for_all_or_for_one() -> None:
    found = services.settings(["A=1", "db:B=2:3", "URL=http://x"], ["db", "redis"])
    assert found == {"db": ("A=1", "B=2:3", "URL=http://x"), "redis": ("A=1", "URL=http://x")}
    with pytest.raises(InvalidArgument, match="'bd'"):
        services.settings(["bd:A=1"], ["db"])


def test_an_image_says_what_it_offers() -> None:
    offered = services.offer("team/thing:1", LABELLED)
    assert (offered.service, offered.port, offered.sql) == ("app", 7000, False)
    assert services.defaults(offered, LABELLED) == ()
    url = services.url(offered, "10.0.0.2", 7000, offered.environment)
    assert url == "app://me:a%3Db@10.0.0.2:7000/"
    with pytest.raises(InvalidArgument, match="APP_USER"):
        services.url(offered, "10.0.0.2", 7000, {})


@pytest.mark.parametrize("port", ["0", "65536", "much", "-1", "٣"])
def test_a_port_that_is_none(port: str) -> None:
    config = {"Labels": {"io.sublet.port": port}}
    with pytest.raises(InvalidArgument, match="no port"):
        services.offer("i", config)


def test_known_images_need_no_labels() -> None:
    config = {"Env": ["POSTGRES_USER=me"], "ExposedPorts": {"5432/tcp": {}}}
    offered = services.offer("docker.io/library/postgres:16", config)
    assert services.defaults(offered, config) == (
        "POSTGRES_PASSWORD=postgres",
        "POSTGRES_DB=postgres",
    )
    url = services.url(offered, "h", offered.port, offered.environment)
    assert (url, offered.sql) == ("postgresql://me:postgres@h:5432/postgres", True)


def test_of_other_images_the_first_port_counts() -> None:
    exposed = {"9000/tcp": {}, "53/udp": {}, "800/tcp": {}, "x/tcp": {}}
    offered = services.offer("minio", {"ExposedPorts": exposed})
    assert (offered.service, offered.port, offered.url) == ("minio", 800, "")
    assert services.offer("minio", {}).port == 0


def test_variables() -> None:
    found = services.variables(
        [
            Running("REDIS", "10.0.0.2", 6379, "redis://10.0.0.2:6379/0"),
            Running("MAIN_DB", "10.0.0.3", 5432, "postgresql://main", sql=True),
            Running("OTHER", "10.0.0.4", 3306, "mysql://other", sql=True),
            Running("PLAIN", "10.0.0.5", 80),
            Running("NONE", "10.0.0.6"),
        ]
    )
    assert found == {
        "REDIS_HOST": "10.0.0.2",
        "REDIS_PORT": "6379",
        "REDIS_URL": "redis://10.0.0.2:6379/0",
        "MAIN_DB_HOST": "10.0.0.3",
        "MAIN_DB_PORT": "5432",
        "MAIN_DB_URL": "postgresql://main",
        "DATABASE_URL": "postgresql://main",
        "OTHER_HOST": "10.0.0.4",
        "OTHER_PORT": "3306",
        "OTHER_URL": "mysql://other",
        "PLAIN_HOST": "10.0.0.5",
        "PLAIN_PORT": "80",
        "NONE_HOST": "10.0.0.6",
    }


def test_dumps_go_to_the_database_s_client() -> None:
    environment = {"POSTGRES_USER": "u", "POSTGRES_PASSWORD": "secret", "POSTGRES_DB": "d"}
    argv, env = services.loader("postgres", environment, b"CREATE TABLE")
    assert (argv[0], env["PGPASSWORD"]) == ("psql", "secret")
    assert "--set=ON_ERROR_STOP=1" in argv
    assert "secret" not in " ".join(argv)
    assert services.loader("postgres", environment, b"PGDMP\1")[0][0] == "pg_restore"
    argv, env = services.loader("mariadb", {"MARIADB_ROOT_PASSWORD": "r"}, b"")
    assert (argv[0], env) == ("mariadb", {"MYSQL_PWD": "r"})
    with pytest.raises(InvalidArgument):
        services.loader("redis", {}, b"")


def test_how_to_connect() -> None:
    running = Running("X", "10.0.0.2", 3306, "url")
    env = {"MARIADB_USER": "u", "MARIADB_PASSWORD": "p w", "MARIADB_DATABASE": "d"}
    line = "mariadb --host=10.0.0.2 --port=3306 --user=u '--password=p w' d"
    assert services.connecting(running, "mariadb", env) == line
    assert services.connecting(running, "postgres", {}) == "psql url"
    assert services.connecting(running, "redis", {}) == "redis-cli -u url"
    assert services.connecting(running, "minio", {}) == ""


def test_a_label_says_nothing_to_a_terminal() -> None:
    config = {"Labels": {"io.sublet.service": "app", "io.sublet.url": "app://\x1b]0;you\x07"}}
    with pytest.raises(InvalidArgument):
        services.offer("app:1", config)


def test_why_a_service_is_not_healthy() -> None:
    def found(code: int, output: str, health: str = "starting") -> dict[str, Any]:
        return {"health": health, "health_results": [{"exit_code": code, "output": output}]}

    assert services.failing({"health": "none"}, 80) == ["Its port 80 takes no connection."]
    assert services.failing({"health": "none"}, 0) == []
    assert services.failing({"health": "starting", "health_results": []}, 80) == []
    assert services.failing(found(0, "fine"), 80) == []
    many = "".join(f"{number}\n" for number in range(20))
    told = services.failing(found(7, many, "unhealthy"), 80)
    assert told == ["Its last health check ended with 7:", *map(str, range(10, 20))]
    assert services.failing(found(1, ""), 0) == ["Its last health check ended with 1, silently."]
    assert services.failing(found(-1, "late"), 0) == ["Its last health check did not end:", "late"]


def test_what_takes_dumps() -> None:
    for image in ("postgres:15", "mariadb", "team/mysql:8", "postgis/postgis:16"):
        services.takes_dumps(services.kind_by_name(image))
    for image in ("redis:7", "nginx", "valkey:8", "mongo:7"):
        with pytest.raises(InvalidArgument, match="no way to load"):
            services.takes_dumps(services.kind_by_name(image))
    assert services.kind_by_name("team/app:1") == ""
