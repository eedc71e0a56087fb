"""Which language a text is in, told by its script and its commonest words; and the stemmer of each. Knows no features."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

import Stemmer

#: Of a text in Latin letters with none of the words below: a wrong stem does little harm where it is always the same one.
FALLBACK = "en"
#: The commonest words of each language that is told by them. They are not searched for, either.
STOP_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        language: frozenset(words.split())
        for language, words in {
            "en": "a about after all also an and any are as at be been before but by can could did do does for from had has "
            "have he her his how i if in into is it its may more most my no not of on or our should so some such than that "
            "the their them then there these they this those to was we were what when where which while who whom why will "
            "with would you your",
            "de": "aber als am an auch auf aus bei bis da damit dann das dass dem den der des die dies diese dieser dieses "
            "durch ein eine einem einen einer eines er es für haben hat ich ihr im in ist kann man mein mit muss nach nicht "
            "noch nur ob oder sein seine sich sie sind so über um und uns unter vom von vor war was welche welchem welchen "
            "welcher welches wenn werden wer wie wird wir wo wurde wurden zu zum zur",
            "fr": "à ai au aux avec ce ces cet cette comment comme d dans de des donc du elle elles en est et être il ils je l "
            "la le les leur leurs lui mais mes mon n ne nos notre nous on ont ou où par pas plus pour qu que quel quelle "
            "quelles quels qui quoi sa sans se ses son sont sur un une vos votre vous y été",
            "es": "a al como con cuál cuáles cuándo cuánto de del desde donde dónde e el ella en entre era es esta está este "
            "esto están fue ha han hay la las le les lo los más me mi muy no nos o para pero por porque que qué quién se "
            "según ser si sin sobre son su sus también un una uno y ya cómo",
            "it": "a al alla alle anche che chi come con cosa da dal dalla dei del della delle di dove e è gli ha "
            "hanno i il in io la le lo loro ma mi nei nel nella non o per perché più quale quali quando quanto questa questo "
            "se si sono su sua sul sulla suo tra un una uno",
            "pt": "à ao aos as às com como da das de do dos e é ela ele em entre era essa esse esta está este eu foi há isso "
            "já lhe mais mas me meu muito na não nas nem no nos o os ou para pela pelas pelo pelos por qual quais quando que "
            "quem se sem ser seu sua são também um uma você",
            "nl": "aan al als bij dat de deze die dit doet door dus een en er geen had heb heeft het hij hoe hun ik in is "
            "je kan kunnen maar me met mijn moet na naar niet nog of om onder ons ook op over te tot u uit van voor waar "
            "wat we welke wanneer werd wie wij wordt worden zal ze zich zij zijn",
            "sv": "att av de den denna det detta du där efter eller en ett från för ha han har hon hur i inte jag kan med "
            "men mot många någon något när och om på sedan sig sin ska som så till under upp ut var vad vi vid vilka vilken "
            "är över",
            "da": "af alle at da de den denne der det dette du efter eller en er et for fra før ham han har hun hvad hvem "
            "hvilke hvilken hvis hvor hvordan hvornår i ikke jeg kan med men mod når og også om op på sig skal som så til "
            "ud ved vi vil være blev bliver",
            "no": "av alle at blir ble da de den denne der det dette du eller en er et etter for fra før ha han har hun hva "
            "hvem hvilke hvilken hvis hvor hvordan i ikke jeg kan med men mot noe når og også om opp på seg skal som så til "
            "ut ved vi vil være",
            "fi": "että ei ennen he hän ja jo joka jos jotka kanssa koska kuin kun kuka me mikä mitkä mitä milloin miten "
            "missä mutta myös ne niin nyt oli olla on ovat sekä se siitä sitä tai tämä vai voi voidaan vain",
            "pl": "a ale bez być co czy dla do gdy gdzie go i ich ile jak jaka jaki jakie je jego jej jest już kiedy kto "
            "która które który lub ma może na nad nie o od oraz po pod przed przez przy się są także tego tej ten to tym w "
            "we więc z za ze że",
            "tr": "ama bir bu çok çünkü da daha de değil diye en gibi hangi her için ile ise kaç kadar ki kim mi mı mu mü "
            "nasıl ne neden nedir nerede o olan olarak olduğu sonra şu var ve veya ya zaman",
            "ru": "а без более был была были было быть в вам вас весь во вот все всех вы где для до его ее если есть еще же за "
            "и из или им их к как какая какие какой ко когда кто ли мы на над не нет но о об он она они от по под при "
            "с со так также там то только у уже чем что чтобы эта эти это этот я",
        }.items()
    }
)
_STEMMERS = {
    "en": "english", "de": "german", "fr": "french", "es": "spanish", "it": "italian", "pt": "portuguese", "nl": "dutch",
    "sv": "swedish", "da": "danish", "no": "norwegian", "fi": "finnish", "pl": "polish", "tr": "turkish", "ru": "russian",
    "ar": "arabic", "el": "greek", "hi": "hindi",
}  # fmt: skip
LANGUAGES = tuple(sorted(_STEMMERS))
_SCRIPTS = {"ARABIC": "ar", "GREEK": "el", "DEVANAGARI": "hi", "CYRILLIC": "ru"}
_NOT_LATIN = frozenset(_SCRIPTS.values())
_SPEAKERS: dict[str, tuple[str, ...]] = {}
for _language, _words in STOP_WORDS.items():
    for _word in _words:
        if len(_word) > 1:  # a letter alone is an item of a list in any language
            _SPEAKERS[_word] = (*_SPEAKERS.get(_word, ()), _language)
MOST_WORDS = 300  # of a text, to tell its language by
ENOUGH_HITS, ENOUGH_SHARE = 2, 0.15  # either is: a command line has a word that is another language's article


def language_of(words: Sequence[str]) -> str:
    """Of lower-case words in reading order. One of LANGUAGES."""
    looked_at = words[:MOST_WORDS]
    hits = hits_of(looked_at)
    if hits:
        best = max(STOP_WORDS, key=lambda language: hits[language])
        if hits[best] >= ENOUGH_HITS or hits[best] >= ENOUGH_SHARE * len(looked_at):
            return best
    return next(filter(None, map(_by_script, looked_at)), FALLBACK)


def told_by(words: Sequence[str]) -> list[str]:
    """All that `language_of` takes of them, for whoever must not keep a text: the commonest words, and of others the beginning,
    which says their script.
    """
    return [word if word in _SPEAKERS else word[:1] for word in words[:MOST_WORDS]]


def hits_of(words: Iterable[str]) -> Counter[str]:
    """How many of the words are among the commonest of each language."""
    return Counter(language for word in words if word in _SPEAKERS for language in _SPEAKERS[word])


def _by_script(word: str) -> str | None:
    """The language that a word's script stands for; None for Latin letters and what has no stemmer."""
    if word.isascii():
        return None
    return _SCRIPTS.get(unicodedata.name(word[0], "").partition(" ")[0])


def language_of_word(word: str, text_language: str) -> str:
    """A word in another script than its text's is not of its text's language."""
    by_script = _by_script(word)
    if by_script is None:
        return FALLBACK if text_language in _NOT_LATIN else text_language
    return text_language if text_language in _NOT_LATIN else by_script


@cache
def _stemmer(language: str) -> Stemmer.Stemmer:
    return Stemmer.Stemmer(_STEMMERS[language], 0)  # 0: we keep what it made, its own cache is not shared by threads


def stem(word: str, language: str) -> str:
    """Of a lower-case word; folded to what people type without accents."""
    return fold(_stemmer(language).stemWord(_spelled(word, language))) or word


_ALEF_AND_ENDINGS = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ة": "ه", "ـ": None})
_MARKS = re.compile("[\u0610-\u061a\u064b-\u065f\u0670]+")


def _spelled(word: str, language: str) -> str:
    """Arabic is written with vowel marks and forms of alef, or without."""
    return _MARKS.sub("", word).translate(_ALEF_AND_ENDINGS) if language == "ar" else word


_LONG_VOWELS = str.maketrans(dict.fromkeys("اويئؤء"))


def consonants(word: str) -> str:
    """Of an Arabic stem: most plurals change its long vowels and keep the rest, as `maktab` and `makātib`."""
    return word.translate(_LONG_VOWELS)


def fold(word: str) -> str:
    """Without the accents that are typed or left out at will; marks of scripts that cannot do without stay."""
    if word.isascii():
        return word
    parts = unicodedata.normalize("NFD", word)
    return unicodedata.normalize("NFC", "".join(part for part in parts if not "\u0300" <= part <= "\u036f"))
