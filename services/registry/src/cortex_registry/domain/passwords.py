"""Passwords and tokens: which are good enough, how they are made, what is kept of them. Hashing is the adapter's."""

import base64
import hashlib
import unicodedata

from cortex_kit.errors import DomainError
from cortex_registry.domain.users import name_key

MIN_LENGTH = 12
MAX_LENGTH = 256
SECRET_BYTES = 32
SECRET_CHARACTERS = 43
TOKEN_PREFIX = "cortex-pat-"
SHOWN_CHARACTERS = len(TOKEN_PREFIX) + 4
ONE_TIME_BYTES = 20
"""Random bytes of a one-time password: each becomes one of 31 characters, 99 bits in all."""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_FEWEST_DIFFERENT = 5
_ROWS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
)
_COMMON_WORDS = """
    password passwort passw0rd p@ssw0rd p@ssword pa$$word motdepasse contrasena qwerty qwertz azerty letmein welcome
    willkommen iloveyou monkey dragon football baseball superman batman princess sunshine shadow master trustno
    starwars whatever michael jordan jennifer charlie computer internet secret geheim changeme default administrator
    admin root owner operator viewer cortex cortexadmin vllm llamacpp llama openai chatgpt server system test testing
    tester guest user username login access temp temporary hello helloworld summer winter spring autumn sommer january
    february march april june july august september october november december monday tuesday wednesday thursday friday
    saturday sunday liverpool chelsea arsenal barcelona pokemon naruto minecraft samsung google facebook blink killer
    mustang corvette ferrari mercedes porsche correcthorsebatterystaple asdfgh asdfghjkl zxcvbnm qazwsx onetwothree
    lovely loveme babygirl chocolate butterfly purple ginger pepper cheese cookie summertime hallo schatz passphrase
    mypassword yourpassword thepassword newpassword oldpassword mysecret topsecret supersecret verysecret letmeinnow
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def normal_password(password: str) -> str:
    """The password as it is hashed: one form, however a keyboard composed it."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, username: str) -> None:
    """Refuse a password that is short, guessable, or says who its owner is.

    Raises:
        DomainError: 422 `weak_password` with the reason.
    """
    reason = weakness(normal_password(password), username)
    if reason is not None:
        errors = [{"field": "new_password", "code": "weak_password", "message": reason}]
        raise DomainError(
            "weak_password", f"Choose another password: {reason}.", status=422, details={"errors": errors}
        )


def weakness(password: str, username: str) -> str | None:
    """What is wrong with a password, or None."""
    if len(password) < MIN_LENGTH:
        return f"it has fewer than {MIN_LENGTH} characters"
    if len(password) > MAX_LENGTH:
        return f"it has more than {MAX_LENGTH} characters"
    if "\x00" in password:
        return "it holds a NUL character"
    folded, name = password.casefold(), name_key(username)
    if len(name) >= 3 and (name in folded or name[::-1] in folded):
        return "it holds the user name"
    if len(set(folded)) < _FEWEST_DIFFERENT:
        return f"it has fewer than {_FEWEST_DIFFERENT} different characters"
    return "it is one of the commonest" if _is_common(folded) else None


def _is_common(folded: str) -> bool:
    """A common word with digits and signs around it or repeated, or a row of the keyboard."""
    bare = "".join(character for character in folded if character.isalnum())
    words = {folded, bare, bare.strip("0123456789"), folded.strip("0123456789!?.,-_*#+$ ")}
    if any(_repeats(word) in _COMMON for word in words):
        return True
    return any(bare in row + row or bare in (row + row)[::-1] for row in _ROWS)


def _repeats(word: str) -> str:
    """The shortest text of which `word` is a repetition."""
    for size in range(1, len(word) // 2 + 1):
        if len(word) % size == 0 and word == word[:size] * (len(word) // size):
            return word[:size]
    return word


def one_time_password(random: bytes) -> str:
    """Four groups of five characters that nobody confuses when they type them.

    Raises:
        ValueError: not 20 bytes.
    """
    if len(random) != ONE_TIME_BYTES:
        raise ValueError(f"a one-time password is made of {ONE_TIME_BYTES} random bytes")
    # 256 is no multiple of 31: the first eight characters are a little likelier, which costs less than a bit in all.
    text = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in random)
    return "-".join(text[start : start + 5] for start in range(0, ONE_TIME_BYTES, 5))


def encode_secret(random: bytes) -> str:
    """43 base64url characters.

    Raises:
        ValueError: not 32 bytes.
    """
    if len(random) != SECRET_BYTES:
        raise ValueError("a secret is made of 32 random bytes")
    return base64.urlsafe_b64encode(random).decode().rstrip("=")


def secret_digest(secret: str) -> str:
    """Lower-case hex SHA-256: a random 256-bit secret needs no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
