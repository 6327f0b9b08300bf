"""The metrics that a PromQL expression reads, and the labels it wants of them.

A tokenizer and the few rules that tell a metric's name from a function, a keyword or a label; whether
the expression is valid PromQL is for promtool to say.
"""
import re

TOKEN = re.compile(r"""
    (?P<space>\s+|\#[^\n]*)
  | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
  | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
  | (?P<number>(?:[0-9]|\.[0-9])[0-9A-Za-z_.]*)
  | (?P<mark>=~|!~|==|!=|>=|<=|[-+*/%^<>=(){}\[\],:@])
""", re.VERBOSE)
# Words that are neither metrics nor calls. Those of the first kind have labels in parentheses.
LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"}
CLOSING = {"(": ")", "[": "]", "{": "}"}


class PromqlError(ValueError):
    pass


def tokens_of(expression):
    tokens = []
    position = 0
    while position < len(expression):
        found = TOKEN.match(expression, position)
        if not found:
            raise PromqlError(f"{expression!r}: what is {expression[position:position + 10]!r}?")
        if found.lastgroup != "space":
            tokens.append((found.lastgroup, found.group()))
        position = found.end()
    return tokens


def end_of(tokens, start):
    """The index behind the bracket that closes the one at `start`."""
    closing = CLOSING[tokens[start][1]]
    for index in range(start + 1, len(tokens)):
        if tokens[index] == ("mark", closing):
            return index + 1
    raise PromqlError(f"{tokens[start][1]} is not closed")


def selector_labels(tokens):
    """Label to (operator, value) of the matchers between braces; braces included."""
    labels = {}
    inner = tokens[1:-1]
    for index in range(0, len(inner), 4):
        part = inner[index:index + 4]
        shape = [kind for kind, _ in part[:3]]
        if shape != ["name", "mark", "string"] or (len(part) == 4 and part[3] != ("mark", ",")):
            raise PromqlError(f"not a matcher: {' '.join(text for _, text in part)}")
        labels[part[0][1]] = (part[1][1], part[2][1][1:-1])
    return labels


def selectors(expression):
    """(metric, labels) for each selector of `expression`."""
    tokens = tokens_of(expression)
    found = []
    index = 0
    while index < len(tokens):
        kind, text = tokens[index]
        following = tokens[index + 1] if index + 1 < len(tokens) else ("end", "")
        if kind == "name" and text.lower() in LABEL_LISTS and following == ("mark", "("):
            index = end_of(tokens, index + 1)
        elif kind == "name" and (text.lower() in WORDS or text.lower() in LABEL_LISTS):
            index += 1
        elif kind == "name" and (following == ("mark", "(") or (
                following[0] == "name" and following[1].lower() in ("by", "without"))):
            index += 1  # a function or an aggregation
        elif kind == "name" or (kind, text) == ("mark", "{"):
            start = index + (1 if kind == "name" else 0)
            labels = {}
            if start < len(tokens) and tokens[start] == ("mark", "{"):
                end = end_of(tokens, start)
                labels = selector_labels(tokens[start:end])
                index = end
            else:
                index = start
            name = text if kind == "name" else name_in_braces(labels)
            found.append((name, labels))
        elif (kind, text) == ("mark", "["):
            index = end_of(tokens, index)
        else:
            index += 1
    return found


def name_in_braces(labels):
    operator, name = labels.pop("__name__", ("", ""))
    if operator != "=":
        raise PromqlError("a selector without one metric's name cannot be checked")
    return name


def metric_names(expression):
    return {name for name, _ in selectors(expression)}


def without_grafana_variables(expression):
    """Grafana replaces these before Prometheus sees them. Inside strings any text is good."""
    expression = re.sub(r"\$__(rate_interval|interval|range)\b", "5m", expression)
    return re.sub(r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?", "variable", expression)
