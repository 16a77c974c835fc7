"""The languages that an answer can be asked for in, and a few plain sentences in each of IFEval's.

Data only; :mod:`risen_plugin.constraints.language` tells languages apart.
"""

# ruff: noqa: RUF001 - these letters are no look-alikes

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_IFEVAL_NAMES = {
    "en": "English",
    "es": "Spanish",
    "pt": "Portuguese",
    "ar": "Arabic",
    "hi": "Hindi",
    "fr": "French",
    "ru": "Russian",
    "de": "German",
    "ja": "Japanese",
    "it": "Italian",
    "bn": "Bengali",
    "uk": "Ukrainian",
    "th": "Thai",
    "ur": "Urdu",
    "ta": "Tamil",
    "te": "Telugu",
    "bg": "Bulgarian",
    "ko": "Korean",
    "pl": "Polish",
    "he": "Hebrew",
    "fa": "Persian",
    "vi": "Vietnamese",
    "ne": "Nepali",
    "sw": "Swahili",
    "kn": "Kannada",
    "mr": "Marathi",
    "gu": "Gujarati",
    "pa": "Punjabi",
    "ml": "Malayalam",
    "fi": "Finnish",
}
IFEVAL: tuple[str, ...] = tuple(_IFEVAL_NAMES)
"""The codes of the languages that IFEval asks for."""
NAMES: Mapping[str, str] = MappingProxyType(
    {
        **_IFEVAL_NAMES,
        "af": "Afrikaans",
        "ca": "Catalan",
        "cs": "Czech",
        "cy": "Welsh",
        "da": "Danish",
        "el": "Greek",
        "et": "Estonian",
        "hr": "Croatian",
        "hu": "Hungarian",
        "id": "Indonesian",
        "lt": "Lithuanian",
        "lv": "Latvian",
        "mk": "Macedonian",
        "nl": "Dutch",
        "no": "Norwegian",
        "ro": "Romanian",
        "sk": "Slovak",
        "sl": "Slovenian",
        "so": "Somali",
        "sq": "Albanian",
        "sv": "Swedish",
        "tl": "Tagalog",
        "tr": "Turkish",
        "zh": "Chinese",
    }
)
"""The English names of all languages that are known, by their codes."""
SENTENCES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "en": (
            "The train leaves at eight in the morning.",
            "We bought bread and apples at the market.",
            "My sister reads a book every week.",
        ),
        "es": (
            "El tren sale a las ocho de la mañana.",
            "Compramos pan y manzanas en el mercado.",
            "Mi hermana lee un libro cada semana.",
        ),
        "pt": (
            "O trem sai às oito horas da manhã.",
            "Compramos pão e maçãs no mercado.",
            "Minha irmã lê um livro por semana.",
        ),
        "ar": (
            "يغادر القطار في الساعة الثامنة صباحا.",
            "اشترينا الخبز والتفاح من السوق.",
            "تقرأ أختي كتابا كل أسبوع.",
        ),
        "hi": (
            "ट्रेन सुबह आठ बजे निकलती है।",
            "हमने बाज़ार से रोटी और सेब खरीदे।",
            "मेरी बहन हर हफ़्ते एक किताब पढ़ती है।",
        ),
        "fr": (
            "Le train part à huit heures du matin.",
            "Nous avons acheté du pain et des pommes au marché.",
            "Ma sœur lit un livre chaque semaine.",
        ),
        "ru": (
            "Поезд отправляется в восемь часов утра.",
            "Мы купили хлеб и яблоки на рынке.",
            "Моя сестра читает книгу каждую неделю.",
        ),
        "de": (
            "Der Zug fährt um acht Uhr morgens ab.",
            "Wir haben auf dem Markt Brot und Äpfel gekauft.",
            "Meine Schwester liest jede Woche ein Buch.",
        ),
        "ja": (
            "電車は朝八時に出発します。",
            "私たちは市場でパンとりんごを買いました。",
            "姉は毎週一冊の本を読みます。",
        ),
        "it": (
            "Il treno parte alle otto del mattino.",
            "Abbiamo comprato il pane e le mele al mercato.",
            "Mia sorella legge un libro ogni settimana.",
        ),
        "bn": (
            "ট্রেনটি সকাল আটটায় ছাড়ে।",
            "আমরা বাজার থেকে রুটি আর আপেল কিনেছি।",
            "আমার বোন প্রতি সপ্তাহে একটি বই পড়ে।",
        ),
        "uk": (
            "Потяг вирушає о восьмій годині ранку.",
            "Ми купили хліб і яблука на ринку.",
            "Моя сестра щотижня читає книжку.",
        ),
        "th": (
            "รถไฟออกเวลาแปดโมงเช้า",
            "เราซื้อขนมปังและแอปเปิลที่ตลาด",
            "พี่สาวของฉันอ่านหนังสือทุกสัปดาห์",
        ),
        "ur": (
            "ٹرین صبح آٹھ بجے روانہ ہوتی ہے۔",
            "ہم نے بازار سے روٹی اور سیب خریدے۔",
            "میری بہن ہر ہفتے ایک کتاب پڑھتی ہے۔",
        ),
        "ta": (
            "ரயில் காலை எட்டு மணிக்குப் புறப்படுகிறது.",
            "நாங்கள் சந்தையில் ரொட்டியும் ஆப்பிளும் வாங்கினோம்.",
            "என் அக்கா வாரம் ஒரு புத்தகம் படிக்கிறாள்.",
        ),
        "te": (
            "రైలు ఉదయం ఎనిమిది గంటలకు బయలుదేరుతుంది.",
            "మేము మార్కెట్లో రొట్టె, ఆపిల్స్ కొన్నాము.",
            "మా అక్క ప్రతి వారం ఒక పుస్తకం చదువుతుంది.",
        ),
        "bg": (
            "Влакът тръгва в осем часа сутринта.",
            "Купихме хляб и ябълки от пазара.",
            "Сестра ми чете по една книга всяка седмица.",
        ),
        "ko": (
            "기차는 아침 여덟 시에 출발합니다.",
            "우리는 시장에서 빵과 사과를 샀습니다.",
            "언니는 매주 책을 한 권 읽습니다.",
        ),
        "pl": (
            "Pociąg odjeżdża o ósmej rano.",
            "Kupiliśmy chleb i jabłka na targu.",
            "Moja siostra czyta jedną książkę tygodniowo.",
        ),
        "he": (
            "הרכבת יוצאת בשעה שמונה בבוקר.",
            "קנינו לחם ותפוחים בשוק.",
            "אחותי קוראת ספר בכל שבוע.",
        ),
        "fa": (
            "قطار ساعت هشت صبح حرکت می‌کند.",
            "ما از بازار نان و سیب خریدیم.",
            "خواهرم هر هفته یک کتاب می‌خواند.",
        ),
        "vi": (
            "Chuyến tàu khởi hành lúc tám giờ sáng.",
            "Chúng tôi đã mua bánh mì và táo ở chợ.",
            "Chị tôi đọc một cuốn sách mỗi tuần.",
        ),
        "ne": (
            "रेल बिहान आठ बजे छुट्छ।",
            "हामीले बजारबाट रोटी र स्याउ किन्यौं।",
            "मेरी दिदी हरेक हप्ता एउटा किताब पढ्छिन्।",
        ),
        "sw": (
            "Treni inaondoka saa mbili asubuhi.",
            "Tulinunua mkate na matofaa sokoni.",
            "Dada yangu anasoma kitabu kila wiki.",
        ),
        "kn": (
            "ರೈಲು ಬೆಳಿಗ್ಗೆ ಎಂಟು ಗಂಟೆಗೆ ಹೊರಡುತ್ತದೆ.",
            "ನಾವು ಮಾರುಕಟ್ಟೆಯಲ್ಲಿ ಬ್ರೆಡ್ ಮತ್ತು ಸೇಬು ಖರೀದಿಸಿದೆವು.",
            "ನನ್ನ ಅಕ್ಕ ಪ್ರತಿ ವಾರ ಒಂದು ಪುಸ್ತಕ ಓದುತ್ತಾಳೆ.",
        ),
        "mr": (
            "रेल्वे सकाळी आठ वाजता सुटते.",
            "आम्ही बाजारातून भाकरी आणि सफरचंद विकत घेतले.",
            "माझी बहीण दर आठवड्याला एक पुस्तक वाचते.",
        ),
        "gu": (
            "ટ્રેન સવારે આઠ વાગ્યે ઉપડે છે.",
            "અમે બજારમાંથી રોટલી અને સફરજન ખરીદ્યાં.",
            "મારી બહેન દર અઠવાડિયે એક પુસ્તક વાંચે છે.",
        ),
        "pa": (
            "ਰੇਲਗੱਡੀ ਸਵੇਰੇ ਅੱਠ ਵਜੇ ਚੱਲਦੀ ਹੈ।",
            "ਅਸੀਂ ਬਾਜ਼ਾਰ ਤੋਂ ਰੋਟੀ ਅਤੇ ਸੇਬ ਖਰੀਦੇ।",
            "ਮੇਰੀ ਭੈਣ ਹਰ ਹਫ਼ਤੇ ਇੱਕ ਕਿਤਾਬ ਪੜ੍ਹਦੀ ਹੈ।",
        ),
        "ml": (
            "ട്രെയിൻ രാവിലെ എട്ട് മണിക്ക് പുറപ്പെടും.",
            "ഞങ്ങൾ ചന്തയിൽ നിന്ന് റൊട്ടിയും ആപ്പിളും വാങ്ങി.",
            "എന്റെ ചേച്ചി എല്ലാ ആഴ്ചയും ഒരു പുസ്തകം വായിക്കും.",
        ),
        "fi": (
            "Juna lähtee kello kahdeksan aamulla.",
            "Ostimme torilta leipää ja omenoita.",
            "Siskoni lukee yhden kirjan viikossa.",
        ),
    }
)
"""Sentences to write an answer in one of IFEval's languages with."""
