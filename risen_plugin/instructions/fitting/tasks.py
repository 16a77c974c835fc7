"""What a task asks for, read from its words: its kind, and what it already settles.

Light and general rules over English: words of the request itself, not of the text that it gives.
They are made to be wrong on the safe side: a task of no known kind is taken for one with a short
answer, to which little can be added.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from risen_plugin.constraints.languages import NAMES

Kind: TypeAlias = Literal[
    "artifact",  # code, formulas, tables: characters matter
    "fixed",  # one right answer, or a given text made into another
    "yes or no",
    "line",  # a slogan, a joke, a headline
    "verse",
    "message",  # an email, a letter: has its own beginning and end
    "script",  # a dialogue, an interview: lines of speakers
    "long",  # a story, an essay, an article
    "explanation",
    "list",
    "question",
]
_FEW = 3  # words that are no sentence yet
_SHOWN = 600  # characters of the request that are looked at, from its beginning and its end


def _any(words: str) -> re.Pattern[str]:
    """Finds one of the alternatives, which are divided by white space, as whole words."""
    return re.compile(rf"\b(?:{'|'.join(words.split())})\b", re.IGNORECASE)


_ARTIFACT = _any(
    r"""
    code codes coding program programs python java javascript ruby sql query regex
    regular\sexpressions? html css xml yaml json csv latex markdown bash shell commands?
    functions? algorithm api leetcode formulas? equations? tables? spreadsheet excel notation
    fen emojis? ascii charts? pars(?:e|ing) tags? logic proof prove syntax typescript php
    kubernetes docker linux c\+\+ sheets matlab bibtex citations? references? calendar
    schedules? timetable sudoku bugs? template survey questionnaire quiz checklist budget
    diagram flowchart playlist url links? jira
    """
)
_FIXED = _any(
    r"""
    respond reply replying response chat emojis?
    classify categori[sz]e category categories label labels true\sor\sfalse yes\sor\sno choose
    select pick determine decide detect identify predict rating fill blanks? mask <mask>
    extract find sort order rank rewrite convert converting converted replace correct
    correctness spelling misspell\w* grammar grammatical\w* proofread translat\w+ transcri\w+
    capitali[sz]\w+ calculate compute solv(?:e|ing) how\smany how\smuch how\sold how\slong
    how\sfar whose verify format synonyms? antonyms? rhymes? pronunciation riddle puzzle
    paraphras\w+ rephras\w+ edit improve simplify polish shorten summar\w+ tl;?dr condense
    revise reword transform turn\sinto change continue repeat copy verbatim recite quote quotes
    fix word\sfor\sword given\stwo analogy pairs? fact-check headline\sfor definition define
    math maths arithmetic sum average percentage phrase\sto capital\sof sentiment entail\w*
    retrieve match assess estimate guess scramble unscramble anagram acronym abbreviations?
    expand insert remove delete underlined? genre part\sof\sspeech
    """
)
_GIVEN = _any(
    r"""
    given provided based\son using\sthe     opinion number numbers
    date year same similar price cost tone intent name\sof names\sof address relation score
    complete completion completing highlight\w* when who where
    following\s(?:text|sentence|sentences|paragraph|passage|article|document|email|words?|list)
    """
)
_COMPOSE = re.compile(
    r"(?:^|[.;,:?!] |\b(?:please|to|should|must|and) )"
    r"(?:write|compose|create|draft|prepare|generate|make|come up with|design|develop|tell)\b",
    re.IGNORECASE,
)
_LINE = _any(
    r"""
    slogans? taglines? mottos? headlines? captions? tweets? jokes? puns? one-liner titles?
    haikus? limericks? proverbs? metaphors? similes? quips? sentence sentences toast
    compliments? pick-up bio bios fortune wish wishes greeting greetings idiom idioms aphorism
    flavor word phrase hashtags? subject\slines? riddles? tongue
    """
)
_VERSE = _any(
    r"""
    poems? poetry songs? lyrics rap raps sonnets? odes? ballads? verses? lullaby rhyming
    """
)
_MESSAGE = _any(
    r"""
    emails? e-mail letters? messages? memo memos invitations? notes? postcards? text\smessages?
    dm apology complaint announcement announcements press\srelease
    """
)
_SCRIPT = _any(
    r"""
    dialogues? conversations? interviews? scripts? screenplays? scenes? sketch chat plays?
    podcast resumes? r\u00e9sum\u00e9s? cv cover\sletter recipes? cooking menu itinerary
    routine syllabus agenda user\sstor(?:y|ies) ticket instructions? directions faq posts?
    """
)
_LONG = _any(
    r"""
    stor(?:y|ies) essays? articles? blog blogs speech speeches reports? fairy\stales? tales?
    novels? chapters? narratives? biography biographies reviews? editorial editorials manifesto
    """
)
_EXPLANATION = _any(
    r"""
    explain describe discuss compare contrast elaborate analy[sz]e why how advice advise
    suggestions? difference differences tell\sme\sabout overview introduce pros advantages
    benefits causes? effects? impact meaning purpose talk\sabout teach argue reasons?
    """
)
_LIST = _any(
    r"""
    list lists suggest recommend brainstorm ideas? tips steps? ways things items examples? top
    name plan plans activities options some what\sare which\sare questions places books movies
    films songs
    """
)
_TEXT = _any(
    r"""
    write compose summar\w+ article recipe recipes plan story essay paragraph post description
    outline guide introduction report improve expand develop ideas
    """
)
_REWORKED = _any(
    r"""
    complete completing completion continue lyrics rewrite reword rephras\w+ paraphras\w+
    translat\w+
    correct grammar spelling changed? rewritten corrected edit polish signature proverb
    metaphor alliterations? sentence chat reply
    """
)
_YES_OR_NO = re.compile(
    r"^(?:is|are|was|were|do|does|did|can|could|should|would|will|has|have|had)\b"
    r"(?!.*\bor\b)[^?]*\?\s*$",
    re.IGNORECASE | re.DOTALL,
)
_TALK = re.compile(
    r"^(?:please |can you |could you |briefly )*"
    r"(?:explain|describe|discuss|elaborate|tell me about)\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"^(?:what|which|why|how|is|are|do|does|can|could|should|would|will)\b", re.I
)

_SETTLES_LENGTH = _any(
    r"""
    as\smany one single couple few several multiple short shorter brief briefly concise
    concisely quick
    succinct\w* summary detailed detail in-depth comprehensive lengthy long longer paragraphs?
    sentences? words? lines? pages? stanzas? bullets? bullet-points? points? sections?
    chapters? characters? letters? minutes? each every simple outline
    """
)
_AMOUNT = re.compile(
    r"\btop \d|\d-\w|\b(?:\d[\d,.]*\+?|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|"
    r"twenty|thirty|fifty|hundred|dozen)(?:[- ][\w'-]+){0,2}[- ][\w'-]+s\b",
    re.IGNORECASE,
)
_EXACT = re.compile(
    r"\b(?:an?|one|single|\d+|two|three|four|five|six|ten)[- ]"
    r"(?:word|sentence|line|character|phrase)s?\b",
    re.IGNORECASE,
)
_SETTLES_FORM = _any(
    r"""
    separated formatted format formatting style structure organi[sz]e\w* lines? columns? rows?
    bullets? numbered headings? sections? outline title quotes? quotation
    """
)
_ONLY = _any(
    r"""
    respond\swith answer\swith reply\swith separated\sby in\sthe\sformat following\sthe\sformat
    formatted only just directly output
    nothing\selse exactly exact without\sexplanation no\sexplanation
    one\sword single\sword verbatim word\sfor\sword do\snot\sadd don't\sadd
    """
)
_FORBIDS = _any(
    r"""
    without avoid avoiding don't don\u2019t never must mustn't include includes including
    mention mentions contain contains containing keywords? starts? ends? begin begins letters?
    rhymes? rhyming alliterat\w+ case capitals? uppercase lowercase comma commas punctuation
    """
)
_QUOTED = re.compile('["\u201c\u201d`<>\\[\\]{}|_=\u2018]|\\w[:/]\\w')
_ENGLISH = _any(
    "a an and are as at be by can do for from give how i in is it me my of on or that the this to "
    "what when where which who why with write you your about tell"
)
_LANGUAGES = _any(
    " ".join(name for name in NAMES.values() if name.isalpha())
    + " Mandarin Latin language languages dialect bilingual"
)


@dataclass(frozen=True)
class Task:
    """What a task asks for.

    :param kind: the form of its answer.
    :param is_english: whether the request is in English and names no other language.
    :param settles_length: whether it says how long the answer is, or how many parts it has.
    :param settles_form: whether it says how the answer is laid out, or what stands in it.
    :param settles_words: whether it says which words, letters or marks are to be used or not.
    :param settles_all: whether nothing beside what it asks for may be in the answer.
    :param gives_text: whether a text is given beside the request.
    :param is_text: whether the answer is a text of some length, rather than a label or a value.
    :param is_reworked: whether the answer is another form of a given text, or goes on with it.
    :param characters: how long it is.
    """

    kind: Kind
    is_english: bool = True
    settles_length: bool = False
    settles_form: bool = False
    settles_words: bool = False
    settles_all: bool = False
    gives_text: bool = False
    is_text: bool = False
    is_reworked: bool = False
    characters: int = 0


def task_of(query: str) -> Task:
    """What ``query``, the request of a user, asks for.

    >>> task_of("List the top 10 films of the year.").settles_length
    True
    >>> task_of("Generate the regular expression based on the description.").kind
    'artifact'
    """
    query = query.strip()
    head, _, rest = query.partition("\n")
    if len(head) > _SHOWN:
        head = f"{head[: _SHOWN // 2]} {head[-_SHOWN // 2 :]}"
    gives_text = bool(rest.strip()) or head.rstrip().endswith(":") or bool(_QUOTED.search(head))
    kind = _kind_of(head, query, gives_text)
    return Task(
        kind=kind,
        is_english=_is_english(head, query),
        settles_length=bool(_SETTLES_LENGTH.search(head) or _AMOUNT.search(head)),
        settles_form=bool(
            _SETTLES_FORM.search(head)
            or _QUOTED.search(head)
            or (kind == "fixed" and _LIST.search(head))
        ),
        settles_words=bool(_FORBIDS.search(head)),
        settles_all=bool(_ONLY.search(head) or _EXACT.search(head)) and kind != "line",
        is_text=bool(_TEXT.search(head)),
        is_reworked=bool(_REWORKED.search(head)),
        gives_text=gives_text,
        characters=len(query),
    )


def _kind_of(head: str, query: str, gives_text: bool) -> Kind:
    if _ARTIFACT.search(head):
        return "artifact"
    if _YES_OR_NO.match(query):
        return "yes or no"
    if _TALK.match(head):
        return "explanation"
    is_given = _GIVEN.search(head) or (gives_text and not _EXPLANATION.search(head))
    if _FIXED.search(head) or (is_given and not _COMPOSE.search(head)):
        return "fixed"
    kinds: tuple[tuple[Kind, re.Pattern[str]], ...] = (
        ("line", _LINE),
        ("message", _MESSAGE),
        ("script", _SCRIPT),
        ("verse", _VERSE),
        ("long", _LONG),
        ("list", _LIST),
        ("explanation", _EXPLANATION),
        ("question", _QUESTION),
    )
    if "?" in head:
        kinds = kinds[1:]  # a question about a line is answered at length
    rest: Kind = "question" if "?" in head or len(head.split()) < _FEW else "fixed"
    for kind, pattern in kinds:
        if pattern.search(head):
            return kind
    return rest


def _is_english(head: str, query: str) -> bool:
    letters = sum(map(str.isalpha, query))
    foreign = sum(c.isalpha() and not c.isascii() for c in query)
    if _LANGUAGES.search(head) or foreign > letters / 10:
        return False
    return len(head.split()) < 4 or bool(_ENGLISH.search(head))
