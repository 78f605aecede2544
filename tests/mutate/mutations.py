"""Wrong versions of a module, each with one small change of the kind that people make."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

_COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
_OPERATORS = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "+",
    ast.Pow: "*",
}  # fmt: skip
_FUNCTIONS = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "floor": "ceil",
    "ceil": "floor", "any": "all", "all": "any",
}  # fmt: skip


class Mutant(NamedTuple):
    """A change of one expression."""

    line: int
    column: int
    before: str
    after: str
    start: int  # bytes in the file
    end: int

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str):
        self.source, self.found = source, []
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line.encode()))

    def text(self, node) -> str:
        return ast.get_source_segment(self.source, node)

    def add(self, node, after: str) -> None:
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        self.found.append(Mutant(node.lineno, node.col_offset, self.text(node), after, start, end))

    def around(self, node, left, operator: str, right) -> None:
        """Replace what stands between two operands."""
        self.add(node, f"({self.text(left)}) {operator} ({self.text(right)})")

    # What only documents, names or complains is left alone.

    def visit_Raise(self, node):
        pass

    visit_JoinedStr = visit_Raise  # noqa: N815

    def visit_AnnAssign(self, node):
        if node.value:
            self.visit(node.value)

    def visit_FunctionDef(self, node):
        arguments = node.args
        for part in (*arguments.defaults, *filter(None, arguments.kw_defaults), *node.body):
            self.visit(part)

    # The changes.

    def visit_Compare(self, node):
        if len(node.ops) == 1:
            self.around(node, node.left, _COMPARISONS[type(node.ops[0])], node.comparators[0])
        self.generic_visit(node)

    def visit_BinOp(self, node):
        texts = [side for side in (node.left, node.right) if isinstance(side, ast.Constant)]
        if type(node.op) in _OPERATORS and not any(isinstance(t.value, str) for t in texts):
            self.around(node, node.left, _OPERATORS[type(node.op)], node.right)
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        if type(node.op) in _OPERATORS:
            operator = _OPERATORS[type(node.op)]
            self.add(node, f"{self.text(node.target)} {operator}= {self.text(node.value)}")
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        operator = " or " if isinstance(node.op, ast.And) else " and "
        self.add(node, "(" + operator.join(f"({self.text(v)})" for v in node.values) + ")")
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, (ast.Not, ast.USub)):
            self.add(node, f"({self.text(node.operand)})")
        self.generic_visit(node)

    def visit_IfExp(self, node):
        self.add(
            node,
            f"({self.text(node.orelse)} if {self.text(node.test)} else {self.text(node.body)})",
        )
        self.generic_visit(node)

    def visit_Constant(self, node):
        value = node.value
        if isinstance(value, bool):
            self.add(node, str(not value))
        elif isinstance(value, int):
            self.add(node, str(value + 1))
        elif isinstance(value, float):
            self.add(node, repr(value * 2 if value else 1.0))

    def visit_Name(self, node):
        if node.id in _FUNCTIONS:
            self.add(node, _FUNCTIONS[node.id])

    def visit_Attribute(self, node):
        if node.attr in _FUNCTIONS:
            self.add(node, f"{self.text(node.value)}.{_FUNCTIONS[node.attr]}")
        self.generic_visit(node)

    def visit_Return(self, node):
        if node.value and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self.add(node.value, "None")
        self.generic_visit(node)


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every wrong version of a module that Python can read."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    for mutant in finder.found:
        try:
            ast.parse(mutant.apply(source.encode()))
        except SyntaxError:
            continue
        yield mutant
