"""Languages: sentences of sixteen, what is too short, what stays the same."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from instructgpt_fast.data.hygiene import language
from instructgpt_fast.data.hygiene.language import UNDETERMINED, check_languages, language_of, languages
from instructgpt_fast.errors import ConfigError

SENTENCES = {
    "en": ("The baker opened his shop before the sun was up.", "Could you tell me how to boil an egg properly?"),
    "de": ("Der Zug nach Hamburg fährt heute leider nicht.", "Kannst du mir bitte die Tür aufmachen?"),
    "fr": ("Le chat dort sur le canapé depuis ce matin.", "Pourriez-vous m'expliquer cette règle encore une fois ?"),
    "es": ("Mañana iremos a la playa si no llueve.", "Dime cómo se prepara una buena tortilla de patatas."),
    "it": ("La finestra della cucina guarda sul giardino.", "Vorrei sapere quando parte il prossimo treno."),
    "pt": ("As crianças estão a brincar no jardim da escola.", "Não sei onde deixei as chaves do carro ontem."),
    "nl": ("De fietsen staan achter het huis onder een afdak.", "Kun je mij uitleggen hoe dit apparaat werkt?"),
    "pl": ("Wczoraj kupiłem świeży chleb i trochę sera.", "Czy możesz mi powiedzieć, która jest godzina?"),
    "sv": ("Vi ska åka till fjällen när skolan är slut.", "Kan du förklara varför himlen är blå på dagen?"),
    "fi": ("Talvella järvi jäätyy ja lapset luistelevat siellä.", "Missä voin ostaa hyvää leipää tässä kaupungissa?"),
    "tr": ("Kardeşim her sabah okula yürüyerek gidiyor.", "Bu akşam yemekte ne pişireceğimizi biliyor musun?"),
    "ru": ("Вчера вечером мы долго гуляли по берегу реки.", "Объясни мне, пожалуйста, как работает этот прибор."),
    "zh": ("昨天我们在公园里散步，遇到了一位老朋友。", "请告诉我怎样才能学好数学。"),
    "ja": ("昨日は友達と一緒に公園を散歩しました。", "この機械の使い方を教えてください。"),
    "ko": ("어제 우리는 친구와 함께 공원을 산책했습니다.", "이 기계를 어떻게 사용하는지 알려 주세요."),
    "ar": ("ذهبنا أمس إلى السوق واشترينا الخبز والفاكهة.", "هل يمكنك أن تشرح لي هذه القاعدة مرة أخرى؟"),
}


@pytest.mark.parametrize("code, sentence", [(code, one) for code, several in SENTENCES.items() for one in several])
def test_a_sentence_is_told(code: str, sentence: str) -> None:
    told, probability = language_of(sentence)
    assert told == code
    assert 0.5 < probability <= 1


def test_the_same_text_gives_the_same_answer() -> None:
    sentences = [one for several in SENTENCES.values() for one in several]
    assert list(map(language_of, sentences)) == [language_of(one) for one in reversed(sentences)][::-1]


@pytest.mark.parametrize("text", ["", "ok", "Hello there!", "12345 67890 +-*/ 12345", "a b c d", "好的", "..." * 50])
def test_too_few_letters_are_no_language(text: str) -> None:
    assert language_of(text) == (UNDETERMINED, 0.0)


def test_the_bound_is_counted_in_letters_and_an_ideograph_says_more() -> None:
    assert language_of("the cat sat on the m")[0] == UNDETERMINED  # 15 letters
    assert language_of("the cat sat on the mat and")[0] == "en"  # 20
    assert language_of("我们走吧")[0] == UNDETERMINED and language_of("我们现在走吧")[0] == "zh"


def test_a_long_text_costs_no_more_than_its_beginning() -> None:
    begin = "The road went on over the hills and down to the sea. " * 50
    assert language_of(begin + "Der Rest ist deutsch. " * 10_000) == language_of(begin[:2000])


def test_broken_characters_do_not_stop_it() -> None:
    assert language_of("the name of the file \ud800 was broken when we read it")[0] == "en"


def test_codes_are_checked() -> None:
    assert set(SENTENCES) <= languages()
    check_languages(("en", "de", UNDETERMINED))
    with pytest.raises(ConfigError, match="got english, xx; choose from "):
        check_languages(("en", "xx", "english"))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("py3langid"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    language._identifier.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'instructgpt_fast\[hygiene\]'"):
        language_of("a sentence that is long enough to be judged")
