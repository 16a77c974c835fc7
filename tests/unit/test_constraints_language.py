"""Telling languages apart: short sentences that the detector has not been tuned on."""

# ruff: noqa: RUF001 - these letters are no look-alikes

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from risen_plugin.constraints import check_all, parse
from risen_plugin.constraints.language import ResponseLanguage, language_of
from risen_plugin.constraints.languages import IFEVAL, NAMES, SENTENCES

SHORT = {
    "en": ("Where can I find a good restaurant?", "It is raining today."),
    "es": ("¿Dónde puedo encontrar un buen restaurante?", "Hoy está lloviendo."),
    "pt": ("Onde posso encontrar um bom restaurante?", "Hoje está chovendo."),
    "ar": ("أين يمكنني أن أجد مطعما جيدا؟", "السماء تمطر اليوم."),
    "hi": ("मुझे अच्छा रेस्तराँ कहाँ मिल सकता है?", "आज बारिश हो रही है।"),
    "fr": ("Où puis-je trouver un bon restaurant ?", "Il pleut aujourd'hui."),
    "ru": ("Где я могу найти хороший ресторан?", "Сегодня идёт дождь."),
    "de": ("Wo kann ich ein gutes Restaurant finden?", "Heute regnet es."),
    "ja": ("いいレストランはどこにありますか？", "今日は雨が降っています。"),
    "it": ("Dove posso trovare un buon ristorante?", "Oggi piove."),
    "bn": ("ভালো রেস্তোরাঁ কোথায় পাব?", "আজ বৃষ্টি হচ্ছে।"),
    "uk": ("Де я можу знайти гарний ресторан?", "Сьогодні йде дощ."),
    "th": ("ฉันจะหาร้านอาหารดีๆ ได้ที่ไหน", "วันนี้ฝนตก"),
    "ur": ("مجھے اچھا ریستوران کہاں مل سکتا ہے؟", "آج بارش ہو رہی ہے۔"),
    "ta": ("நல்ல உணவகம் எங்கே இருக்கிறது?", "இன்று மழை பெய்கிறது."),
    "te": ("మంచి రెస్టారెంట్ ఎక్కడ ఉంది?", "ఈ రోజు వర్షం పడుతోంది."),
    "bg": ("Къде мога да намеря добър ресторант?", "Днес вали дъжд."),
    "ko": ("좋은 식당을 어디에서 찾을 수 있나요?", "오늘은 비가 옵니다."),
    "pl": ("Gdzie mogę znaleźć dobrą restaurację?", "Dzisiaj pada deszcz."),
    "he": ("איפה אפשר למצוא מסעדה טובה?", "היום יורד גשם."),
    "fa": ("کجا می‌توانم یک رستوران خوب پیدا کنم؟", "امروز باران می‌بارد."),
    "vi": ("Tôi có thể tìm nhà hàng ngon ở đâu?", "Hôm nay trời mưa."),
    "ne": ("राम्रो रेस्टुरेन्ट कहाँ पाइन्छ?", "आज पानी परिरहेको छ।"),
    "sw": ("Ninaweza kupata wapi mkahawa mzuri?", "Leo mvua inanyesha."),
    "kn": ("ಒಳ್ಳೆಯ ಹೋಟೆಲ್ ಎಲ್ಲಿದೆ?", "ಇಂದು ಮಳೆ ಬರುತ್ತಿದೆ."),
    "mr": ("मला चांगले हॉटेल कुठे मिळेल?", "आज पाऊस पडत आहे."),
    "gu": ("મને સારી રેસ્ટોરન્ટ ક્યાં મળશે?", "આજે વરસાદ પડી રહ્યો છે."),
    "pa": ("ਮੈਨੂੰ ਚੰਗਾ ਰੈਸਟੋਰੈਂਟ ਕਿੱਥੇ ਮਿਲੇਗਾ?", "ਅੱਜ ਮੀਂਹ ਪੈ ਰਿਹਾ ਹੈ।"),
    "ml": ("നല്ല ഭക്ഷണശാല എവിടെയാണ്?", "ഇന്ന് മഴ പെയ്യുന്നു."),
    "fi": ("Mistä voin löytää hyvän ravintolan?", "Tänään sataa vettä."),
}


def test_every_language_of_ifeval_is_known_by_name_and_has_sentences() -> None:
    assert len(IFEVAL) == 30
    assert set(IFEVAL) == set(SHORT) == set(SENTENCES)
    assert set(IFEVAL) < set(NAMES)


@pytest.mark.parametrize("language", IFEVAL)
def test_short_sentences_are_identified_in_any_case(language: str) -> None:
    for sentence in (*SHORT[language], *SENTENCES[language]):
        assert language_of(sentence) == language, sentence
        assert language_of(sentence.lower()) == language, sentence
    assert language_of(" ".join(SENTENCES[language]).upper()) == language


@pytest.mark.parametrize(
    "text", ["12345 67", "!!!", "{}", "ok", "xkcd qwrt", "\U0001f642\U0001f642", "Hallo", "\u0300"]
)
def test_what_cannot_be_identified_passes_for_no_language(text: str) -> None:
    assert language_of(text) is None
    assert not any(ResponseLanguage(code).check(text) for code in ("en", "de", "it"))


def test_codes_are_read_in_any_case_and_chinese_in_its_variants() -> None:
    id_ = "language:response_language"
    assert parse(id_, {"language": " DE "}).kwargs == {"language": "de"}
    assert parse(id_, {"language": "zh-cn"}).kwargs == {"language": "zh"}
    assert check_all(
        "\u706b\u8f66\u65e9\u4e0a\u516b\u70b9\u51fa\u53d1\u3002", [id_], [{"language": "zh"}]
    ) == [True]


def test_the_language_is_asked_for_by_name() -> None:
    for seed in range(9):
        assert "Swahili" in ResponseLanguage("sw").describe(random.Random(seed))


def test_the_model_is_loaded_with_the_first_text_and_not_before() -> None:
    code = (
        "import sys; from risen_plugin.constraints import check_all;"
        "assert 'py3langid' not in sys.modules;"
        "check_all('Es regnet.', ['language:response_language'], [{'language': 'de'}]);"
        "assert 'py3langid' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
