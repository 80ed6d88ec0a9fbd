"""Tests that write what they like, each to a database of its own."""

from __future__ import annotations

import pytest
from conftest import psql

from sublet.pytest_plugin import Service


@pytest.mark.parametrize("name", ["alan", "barbara", "edsger"])
def test_a_customer_is_added(db: Service, name: str) -> None:
    psql(db, "-c", f"INSERT INTO customers (name) VALUES ('{name}')")
    assert psql(db, "-c", "SELECT name FROM customers ORDER BY id") == f"ada\ngrace\n{name}"


def test_orders_go_with_their_customer(db: Service) -> None:
    psql(db, "-c", "INSERT INTO orders (customer, euros) VALUES (1, 9.90), (2, 5)")
    psql(db, "-c", "DELETE FROM customers WHERE name = 'ada'")
    assert psql(db, "-c", "SELECT customer, euros FROM orders") == "2|5"


def test_a_table_may_be_dropped(db: Service) -> None:
    psql(db, "-qc", "DROP TABLE orders")
    assert psql(db, "-c", "SELECT count(*) FROM customers") == "2"


def test_nobody_else_was_here(db: Service) -> None:
    assert psql(db, "-c", "SELECT count(*) FROM orders") == "0"
