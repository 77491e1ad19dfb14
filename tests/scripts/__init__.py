"""Tests of the programs in scripts/. A package, so that its conftest is not the other one to type checkers."""
