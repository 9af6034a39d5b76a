"""What a chat template can do, judged by its text alone: nothing of a stranger's template is ever run. Pure."""

import re
from types import MappingProxyType

REFUSES_SYSTEM = re.compile(
    r"system (?:role|message|prompt)s?[^\n]{0,40}not (?:be )?(?:supported|allowed)", re.IGNORECASE
)
SYSTEM = re.compile(
    r"""['"]system['"]"""  # asks for the role
    r"""|\b(?:message|msg|m)(?:\.role\b|\[['"]role['"]\])\s*(?:\}\}|-\}\}|\+|~|\|)"""  # or writes whatever role comes
)
MARKS = MappingProxyType(
    {
        "tools": re.compile(r"\btools\b|\btool_calls?\b|\bfunctions\b"),
        "reasoning": re.compile(
            r"</?think(?:ing)?>|\benable_thinking\b|\bthinking\b|\breasoning_(?:content|effort)\b"
            r"|\[THINK\]|<\|channel\|>\s{0,4}analysis|<\|START_THINKING\|>|<seed:think>"
        ),
        "image": re.compile(
            r"""['"]image(?:_url)?['"]|<image>|<\|?image_?(?:pad|start|soft_token)?\|?>|<start_of_image>|\[IMG\]"""
        ),
        "audio": re.compile(r"""['"](?:input_)?audio(?:_url)?['"]|<\|?audio[_a-zA-Z]{0,16}\|?>|<\|AUDIO\|>"""),
        "video": re.compile(r"""['"]video(?:_url)?['"]|<\|?video_?(?:pad)?\|?>"""),
    }
)


def template_capabilities(template: str) -> tuple[str, ...]:
    """Which of system, tools, reasoning, image, audio, video a template handles; in this order.

    A judgement by well-known marks: a template may do more in a way not known here. Linear in the template's length.
    """
    text = _without_comments(template)
    found = ["system"] if SYSTEM.search(text) and not REFUSES_SYSTEM.search(text) else []
    return (*found, *(name for name, mark in MARKS.items() if mark.search(text)))


def _without_comments(template: str) -> str:
    """Without `{# ... #}`. By hand: an expression for it takes quadratic time on comments that never end."""
    kept: list[str] = []
    position = 0
    while (start := template.find("{#", position)) >= 0:
        kept.append(template[position:start])
        end = template.find("#}", start + 2)
        if end < 0:
            return "".join(kept)
        position = end + 2
    return "".join((*kept, template[position:]))
