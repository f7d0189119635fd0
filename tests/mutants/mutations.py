"""The mutants of a module: each is the module's source with one small fault in it.

A mutant is named by what it changes and not by where that stands: its module, its function, the
kind of change, and the statement before and after. So its name survives lines that move.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

Change: TypeAlias = tuple[str, "ast.AST | None"]  # the kind, and what stands in the node's place

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
# An error that a caller who tells errors apart would miss. Any other one becomes a RuntimeError.
ERRORS = {"FormatError": "IntegrityError", "IntegrityError": "FormatError", "RecordError": "ValueError"}
NOT_CODE = ("annotation", "returns", "decorator_list", "type_params")  # fields of a node


@dataclass(frozen=True)
class Mutant:
    """One fault. :attr:`lines` are those of the statement that holds it, in the file as it is."""

    module: str
    function: str
    operator: str
    old: str
    new: str
    lines: range
    tree: ast.Module
    place: tuple[ast.AST, str, int | None]
    node: ast.AST | None

    @property
    def key(self) -> str:
        """The name of the mutant, as it stands in the list of accepted ones."""
        return f"{self.module} || {self.function} || {self.operator} || {self.old} => {self.new}"

    def source(self) -> str:
        """Return the whole module with the fault."""
        before = _put(self.place, self.node)
        try:
            return ast.unparse(ast.fix_missing_locations(self.tree)) + "\n"
        finally:
            _put(self.place, before)


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order in which they stand in it."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    seen: Counter[str] = Counter()
    for mutant in _Maker(module, tree, source.splitlines()).within(tree):
        seen[mutant.key] += 1
        twin = seen[mutant.key]  # the same statement may stand twice in a function
        found.append(mutant if twin == 1 else replace(mutant, function=f"{mutant.function} ({twin})"))
    return found


class _Maker:
    def __init__(self, module: str, tree: ast.Module, lines: list[str]) -> None:
        self._module, self._tree, self._lines = module, tree, lines
        self._names: list[str] = []
        self._returns: list[str] = [""]  # the annotation of what each function around here returns
        self._statement: ast.AST = tree

    def within(self, node: ast.AST) -> Iterator[Mutant]:
        for field, value in list(ast.iter_fields(node)):
            if field in NOT_CODE:
                continue
            many = isinstance(value, list)
            for index, child in enumerate(list(value) if many else [value]):
                if isinstance(child, ast.AST):
                    yield from self._visit(child, (node, field, index if many else None))

    def _visit(self, node: ast.AST, place: tuple[ast.AST, str, int | None]) -> Iterator[Mutant]:
        if isinstance(node, ast.stmt) and self._is_no_code(node):
            return
        if isinstance(node, ast.JoinedStr) and isinstance(self._statement, ast.Raise):
            # A message for people: what is cut off in it, or counted, decides nothing.
            return
        around, is_head = self._statement, isinstance(node, (ast.stmt, ast.ExceptHandler))
        if is_head:
            self._statement = node
        for operator, changed in (*_changes_of(node, self._returns[-1]), *_changes_at(node, *place[:2])):
            yield self._mutant(operator, place, node, changed)
        names = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            self._names.append(node.name)
            returned = node.returns if isinstance(node, ast.FunctionDef) else None
            self._returns.append(ast.unparse(returned) if returned else "")
        yield from self.within(node)
        if names:
            self._names.pop()
            self._returns.pop()
        self._statement = around

    def _mutant(
        self, operator: str, place: tuple[ast.AST, str, int | None], node: ast.AST, changed: ast.AST | None
    ) -> Mutant:
        statement = self._statement
        old = _head(statement)
        _put(place, changed)
        try:
            new = _head(changed if changed is not None and node is statement else statement)
        finally:
            _put(place, node)
        first = getattr(statement, "lineno", 1)
        last = getattr(statement, "end_lineno", first)
        if body := getattr(statement, "body", None):
            last = max(first, body[0].lineno - 1)
        function = ".".join(self._names) or "<module>"
        lines = range(first, last + 1)
        return Mutant(self._module, function, operator, old, new, lines, self._tree, place, changed)

    def _is_no_code(self, node: ast.stmt) -> bool:
        """Tell whether a statement is for readers and type checkers, or never runs."""
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant()):
                return True
            case ast.Assign([ast.Name("__all__" | "__slots__")]) | ast.If(ast.Name("TYPE_CHECKING")):
                return True
            case ast.ClassDef() if any(ast.unparse(base) == "Protocol" for base in node.bases):
                return True
        return "pragma: no cover" in self._lines[node.lineno - 1]


def _changes_of(node: Any, returns: str) -> Iterator[Change]:  # noqa: PLR0912  # a table
    """Yield what may stand in the place of a node because of what it is."""
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in COMPARISONS[type(operator)]:
                    yield "compare", _with(node, ops=_replaced(node.ops, index, other()))
        case ast.BoolOp():
            yield "and/or", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            for index in range(len(node.values)):
                left = node.values[:index] + node.values[index + 1 :]
                yield "operand", _with(node, values=left) if len(left) > 1 else left[0]
        case ast.UnaryOp(op=ast.Not()):
            yield "not", node.operand
        case ast.BinOp() if not (_is_text(node.left) or _is_text(node.right)) and type(node.op) in ARITHMETIC:
            yield "arithmetic", _with(node, op=ARITHMETIC[type(node.op)]())
        case ast.AugAssign():
            yield "assign", ast.Assign([node.target], node.value, lineno=node.lineno)
            if isinstance(node.op, ast.Add):
                yield "arithmetic", _with(node, op=ast.Sub())
        case ast.Constant(bool()):
            yield "constant", ast.Constant(not node.value)
        case ast.Constant(int()):
            yield "constant", ast.Constant(node.value + 1)
            yield "constant", ast.Constant(node.value - 1)
        case ast.Return(ast.expr() as value):
            for changed in _returned(value, returns):
                yield "return", _with(node, value=changed)
        case ast.Expr(ast.Call()) | ast.Delete():
            yield "remove", ast.Pass()
        case ast.Slice():
            yield from _bounds(node)
        case ast.Call(ast.Name(name)) if name in OPPOSITES:
            yield "call", _with(node, func=ast.Name(OPPOSITES[name]))
        case ast.Raise(ast.Call(ast.Name(name)) as call):
            yield "error", _with(node, exc=_with(call, func=ast.Name(ERRORS.get(name, "RuntimeError"))))
        case ast.ExceptHandler(ast.Tuple() as caught):
            for index in range(len(caught.elts)):
                yield "except", _with(node, type=_with(caught, elts=_replaced(caught.elts, index)))
        case ast.ExceptHandler(ast.expr() as caught):
            is_all = ast.unparse(caught) == "BaseException"
            yield "except", _with(node, type=ast.Name("Exception") if is_all else ast.Tuple([]))
        case ast.Attribute(ast.Name("Reason"), name) if isinstance(node.ctx, ast.Load):
            yield "reason", _with(node, attr="BAD_HEADER" if name == "IO_ERROR" else "IO_ERROR")
        case ast.Break():
            yield "loop", ast.Continue()
        case ast.Continue():
            yield "loop", ast.Break()


def _changes_at(node: Any, parent: ast.AST, field: str) -> Iterator[Change]:
    """Yield what may stand in the place of a node because of where it stands."""
    if field == "test" and isinstance(parent, (ast.If, ast.While, ast.IfExp)):
        if not (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
            yield "condition", ast.UnaryOp(ast.Not(), node)
        yield "condition", ast.Constant(value=False)
    elif field == "ifs" and isinstance(parent, ast.comprehension):
        yield "condition", ast.Constant(value=True)


def _returned(value: ast.expr, annotation: str) -> Iterator[ast.expr | None]:
    if annotation == "bool":
        if not isinstance(value, ast.Constant):
            yield ast.UnaryOp(ast.Not(), value)
        return
    if annotation == "int":
        yield ast.BinOp(value, ast.Add(), ast.Constant(1))
        yield ast.BinOp(value, ast.Sub(), ast.Constant(1))
        return
    if annotation in {"bytes", "str"}:
        yield ast.Subscript(value, ast.Slice(upper=ast.Constant(0)))
    if not (isinstance(value, ast.Constant) and value.value is None):
        yield None


def _bounds(node: ast.Slice) -> Iterator[Change]:
    for field in ("lower", "upper"):
        bound = getattr(node, field)
        if bound is None:
            continue
        yield "slice", _with(node, **{field: None})
        if not isinstance(bound, ast.Constant):
            yield "slice", _with(node, **{field: ast.BinOp(bound, ast.Add(), ast.Constant(1))})
            yield "slice", _with(node, **{field: ast.BinOp(bound, ast.Sub(), ast.Constant(1))})


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    )


def _with(node: Any, **fields: object) -> Any:
    """Return a copy of a node with some of its fields replaced."""
    return ast.copy_location(type(node)(**{**dict(ast.iter_fields(node)), **fields}), node)


def _replaced(items: list[Any], index: int, *new: Any) -> list[Any]:
    return [*items[:index], *new, *items[index + 1 :]]


def _put(place: tuple[ast.AST, str, int | None], node: ast.AST | None) -> ast.AST:
    """Put a node in a place of the tree; return the one that was there."""
    parent, field, index = place
    value = getattr(parent, field)
    if index is None:
        setattr(parent, field, node)
        return value  # type: ignore[no-any-return]  # what ast.iter_fields gave
    before = value[index]
    value[index] = node
    return before  # type: ignore[no-any-return]  # what ast.iter_fields gave


def _head(node: ast.AST) -> str:
    """Return a statement in one line, without what is nested in it."""
    fields = dict(ast.iter_fields(node))
    if "body" in fields:
        nested = {"orelse": [], "finalbody": [], "handlers": [], "decorator_list": []}
        kept = {name: value for name, value in nested.items() if name in fields}
        node = _with(node, body=[ast.Pass()], **kept)
        return ast.unparse(node).split("\n")[0]
    return " ".join(ast.unparse(node).split())
