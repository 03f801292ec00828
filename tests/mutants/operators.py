"""The kinds of small faults that are planted: those of cosmic-ray, and some of ours for calls, locks and SQL."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.tree import search_ancestor

# The library replaces each operator by every other one; one or two neighbours show as much.
_SWAPS = (
    "BinaryOperator_Add_Sub BinaryOperator_Sub_Add BinaryOperator_Mul_Div BinaryOperator_Div_Mul "
    "BinaryOperator_FloorDiv_Mul BinaryOperator_Mod_Mul BinaryOperator_Pow_Mul "
    "BinaryOperator_BitOr_BitAnd BinaryOperator_BitAnd_BitOr "
    "ComparisonOperator_Eq_NotEq ComparisonOperator_NotEq_Eq ComparisonOperator_Is_IsNot "
    "ComparisonOperator_IsNot_Is ComparisonOperator_Lt_LtE ComparisonOperator_Lt_GtE ComparisonOperator_LtE_Lt "
    "ComparisonOperator_LtE_Gt ComparisonOperator_Gt_GtE ComparisonOperator_Gt_LtE ComparisonOperator_GtE_Gt "
    "ComparisonOperator_GtE_Lt "
    "UnaryOperator_Delete_Not TrueWithFalse FalseWithTrue AndWithOr OrWithAnd BreakWithContinue ContinueWithBreak"
)
_OPERATORS = [f"core/Replace{name}" for name in _SWAPS.split()] + [
    f"core/{name}" for name in ("AddNot", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop")
]

_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_METHODS = {"where", "order_by", "with_for_update", "limit", "distinct", "strip"}
_NOT_RULES = ("log.", "metrics.")  # lines of the log, and counting

_SQL = re.compile(r"\b(select|update|delete from|insert into|where|order by|limit|for share)\b|\b\w+ (= |is null)")
_CONDITION = r"(?:(?! and | or )(?:[^()\n'\"]|'[^'\n]*'|\((?:[^()]|\([^()]*\))*\)))+?"
_END = r"(?=\s+(?:and|or|order by|limit|group by|for|returning|then|where|from)\b|\s*\n|\s*[\",)]|\s*$)"
_SQL_CHANGES = [
    (rf"\s(?:and|or) {_CONDITION}{_END}", ""),
    (rf"(?<=where ){_CONDITION} and ", ""),
    (rf"(?<=where ){_CONDITION}(?!\s+and\b){_END}", "true"),
    (rf",\s+\w+ = {_CONDITION}{_END}", ""),
    (r"\s*\bfor (?:no key update|update|share)(?: of \w+)?(?: skip locked)?", ""),
    (r" skip locked", ""),
    (r"\s*\border by \w(?:[^()\n\"]|\((?:[^()]|\([^()]*\))*\))*?(?=\s+(?:limit|for)\b|[\n)\"]|$)", ""),
    (r" desc\b", ""),
    (r"\s*\blimit :\w+", ""),
    (r" distinct\b", ""),
    (r"\bis not null", "is null"),
    (r"\bis null", "is not null"),
    (r"(?<= )<(?= )", "<="),
    (r"(?<= )>(?= )", ">="),
    (r"(?<= )<=(?= )", "<"),
    (r"(?<= )>=(?= )", ">"),
    (r"(?<= )<>(?= )", "="),
    (r"\bgreatest\b", "least"),
]


class _Rewriting(Operator):  # type: ignore[misc]
    """Replaces a node by other code."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        for _ in _rewrites(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.parse(  # type: ignore[no-untyped-call]
            node.get_first_leaf().prefix + list(_rewrites(node))[index]
        )

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


def _rewrites(node: Any) -> Iterator[str]:
    code = node.get_code(include_prefix=False)
    parent = node.parent.type if node.parent else ""
    yield from _without_statement(node, code)
    if parent != "async_stmt":
        yield from _without_block(node, code)
    if node.type == "atom_expr":
        yield from _without_calls(node.children)
    if node.type == "comparison" and " in " in code:
        yield code.replace(" not in ", " in ", 1) if " not in " in code else code.replace(" in ", " not in ", 1)
    if node.type == "name" and code in _NAMES and parent != "trailer" and node.get_next_leaf().value == "(":
        yield _NAMES[code]
    if node.type in ("string", "fstring_string") and parent != "simple_stmt" and _SQL.search(code):
        for pattern, new in _SQL_CHANGES:
            for match in re.finditer(pattern, code):
                yield code[: match.start()] + new + code[match.end() :]


def _without_statement(node: Any, code: str) -> Iterator[str]:
    if node.parent is None or node.parent.type != "simple_stmt":
        return
    made: Any = search_ancestor(node, "funcdef")
    sets_attribute = node.type == "expr_stmt" and node.children[0].type == "atom_expr"
    sets_attribute &= made is None or made.name.value != "__init__"
    is_rule = not code.removeprefix("await ").startswith(_NOT_RULES)
    if is_rule and (sets_attribute or node.type in ("atom_expr", "raise_stmt")):
        yield "pass"


def _without_block(node: Any, code: str) -> Iterator[str]:
    """Leave out what a block holds, as a lock, or the errors that it catches."""
    block = node.children[1] if node.type == "async_stmt" else node
    if block.type == "with_stmt":
        body = block.children[-1].get_code()
        if " as " not in code.removesuffix(body):
            yield "if True:" + body
    if node.type == "except_clause":
        yield "except ()" + (f" as {node.children[3].value}" if len(node.children) > 2 else "")


def _without_calls(children: list[Any]) -> Iterator[str]:
    """Leave out a method of a query, or one of its conditions."""
    for i, (name, call) in enumerate(pairwise(children)):
        if name.get_code().strip().lstrip(".") in _METHODS and call.get_code().startswith("("):
            before, after = ("".join(c.get_code() for c in part) for part in (children[:i], children[i + 2 :]))
            yield (before + after).strip()
            arguments = call.children[1]
            if arguments.type == "arglist":
                for one in arguments.children[::2]:
                    others = ", ".join(c.get_code().strip() for c in arguments.children[::2] if c is not one)
                    yield f"{before}{name.get_code()}({others}){after}".strip()


_GUARDS = ("frozen", "slots", "strict")
_OPPOSITES = {ast.Eq: ast.NotEq, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Is: ast.IsNot, ast.In: ast.NotIn}
_OPPOSITES |= {opposite: one for one, opposite in _OPPOSITES.items()}


class _Meaning(ast.NodeTransformer):
    """Writes in one way what means the same, and leaves out what guards against programmers only."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        inner = self.visit(node.operand)
        if isinstance(node.op, ast.Not) and isinstance(inner, ast.Compare) and len(inner.ops) == 1:
            return ast.Compare(inner.left, [_OPPOSITES[type(inner.ops[0])]()], inner.comparators)
        double = isinstance(node.op, ast.Not) and isinstance(inner, ast.UnaryOp) and isinstance(inner.op, ast.Not)
        return inner.operand if double else ast.UnaryOp(node.op, inner)

    def visit_keyword(self, node: ast.keyword) -> Any:
        return ast.keyword(node.arg, ast.Constant(0)) if node.arg in _GUARDS else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if isinstance(node.target, ast.Attribute):
            node.annotation = ast.Constant(0)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: Any) -> Any:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815


def _meaning(code: str) -> str:
    return ast.dump(_Meaning().visit(ast.parse(code)))


def mutants(code: str) -> Iterator[str]:
    """Return the code with one fault each; each once, and only what can be compiled."""
    nodes = list(ast_nodes(get_ast(code)))
    known = {_meaning(code)}
    for operator in [*(get_operator(name)() for name in _OPERATORS), _Rewriting()]:
        places = [node for node in nodes for _ in operator.mutation_positions(node)]
        for occurrence, node in enumerate(places):
            if _changes_no_rule(node):
                continue
            mutant = mutate_code(code, operator, occurrence)
            try:
                meaning = _meaning(mutant)
                compile(mutant, "mutant", "exec")
            except SyntaxError:
                continue
            if meaning not in known:
                known.add(meaning)
                yield mutant


def _changes_no_rule(node: Any) -> bool:
    decorator = node if node.type == "decorator" else search_ancestor(node, "decorator")
    in_dataclass = decorator is not None and "dataclass" in decorator.get_code()  # frozen, slots
    statement: Any = search_ancestor(node, "simple_stmt")
    if statement is not None and statement.get_code(include_prefix=False).startswith(_NOT_RULES):
        return True
    return in_dataclass or (node.parent is not None and node.parent.type == "parameters")  # a lone *
