"""The package under beartype: every call is checked, of functions of modules and of methods alike.

What is defined within a function is made anew at every call of that function, and beartype would compile its checks as
often: that took more time than the tests did. So these are left as they are; the package has few of them, and short
ones. Variables with annotations are checked everywhere.
"""

import ast
from typing import Any

from beartype import BeartypeConf
from beartype._data.claw import dataclawmagic
from beartype.claw import beartype_package
from beartype.claw._ast.clawastmain import BeartypeNodeTransformer

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_decorate = BeartypeNodeTransformer._decorate_node_beartype


def _decorate_outside_of_functions(self: Any, node: Any, conf: BeartypeConf) -> None:
    if not any(scope.node_type in FUNCTIONS for scope in self._scopes):
        _decorate(self, node, conf)


BeartypeNodeTransformer._decorate_node_beartype = _decorate_outside_of_functions
dataclawmagic.OPTIMIZATION_MARKER_BEARTYPE += "outer"  # byte code of its own


def check_types_of(package: str) -> None:
    """Have the modules of the package checked as they are imported; to be called before they are."""
    beartype_package(package, conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
