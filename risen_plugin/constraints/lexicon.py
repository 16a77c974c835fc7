"""The words that constraints ask for, forbid and begin with: everyday English, by part of speech.

Written by hand for this project. None is a name, rude, technical or about faith, illness or
violence, so that any of them can stand in any text. ``text`` counts words; which of these are
asked for is up to each constraint.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _listed(
    """
    ability access account action activity addition address advantage adventure advice afternoon
    age agreement aim air airport alarm album alphabet amount anchor angle animal apartment apple
    apron arch area arrival arrow art article artist aspect assembly atmosphere attempt attention
    attitude audience author autumn avenue award awareness background bag bakery balance balcony
    ball balloon banana bank banner bargain barn barrel base basket bath battery beach beam bean
    bear beauty bedroom bee beginning behavior bell belt bench benefit bicycle bird birth birthday
    biscuit blanket block blossom board boat body bonus book boot border bottle bottom boundary
    bowl box branch bread breakfast breath breeze brick bridge broom brother brush bubble bucket
    budget builder building bundle bus bush business butter butterfly button cabin cabinet cable
    cafe cake calendar calm camera camp canal candle canvas captain caravan care career carpet
    carriage carrot cart cartoon castle catalog category cause cave ceiling celebration center
    century ceremony chain chair challenge champion chance change character charm chart cheese
    cherry chess chicken child chocolate choice circle citizen city class classroom clay cliff
    climate clock cloth cloud clue coach coast coat coffee coin collection college column
    combination comfort comment committee community companion company comparison compass
    competition concept concert conclusion condition confidence connection contact content context
    contrast control conversation cook cookie copper copy corner corridor cottage cotton country
    couple courage course cousin cover cow cradle craft cream creation creature crew crop crowd
    crown crystal culture cup cupboard curtain curve customer cycle dance data date daughter dawn
    day deal debate decade decision deck degree delay delight delivery demand department desert
    design desk detail development device dialogue diary dictionary difference difficulty dinner
    direction discovery discussion dish distance district document dog dolphin door double dozen
    dragon drama drawer drawing dream dress drink driver duck duty eagle ear earth ease east edge
    editor education effect effort egg elbow element elevator emotion emphasis employee encounter
    energy engine engineer enjoyment entrance entry envelope environment episode equal equipment
    error essence evening event evidence example exchange excitement excuse exercise exhibition
    exit expansion experience experiment expert explanation exploration expression extension eye
    fabric face fact factor factory failure fair family fan farm farmer fashion father feather
    feature feedback feeling fence festival field figure film finger finish fire fish flag flame
    flavor flight floor flower flute focus fog food foot force forest fork form fortune foundation
    fountain fox frame freedom friend friendship frog front fruit fuel fun function furniture
    future gallery game gap garage garden garlic gate gathering gesture gift glacier glance glass
    globe glove goal goat gold goodness grain grandfather grandmother grape grass gravity greeting
    ground group growth guard guest guidance guide guitar habit half hall hammer hand handle
    happiness harbor harmony harvest hat health heart heat height help heritage hero hill hint
    history hobby holiday home honey hook hope horizon horse host hotel hour house household human
    humor idea ideal image imagination impact importance impression improvement inch income
    increase independence index industry influence information ingredient initiative innovation
    insect insight inspiration instance institution instrument intention interest interview
    introduction invention invitation iron island jacket jar jewel job joke journal journey joy
    judgment juice jungle kettle key keyboard kindness king kitchen kite knee knife knowledge
    label laboratory lace ladder lady lake lamp land landscape lane lantern laughter law layer
    leader leadership leaf learning leather leg lemon length lesson level library lid life light
    limit link lion literature living location lock log logic luck luggage lunch machine magazine
    magic mail majority manager manner map marble margin market mask master match material matter
    maximum meadow meal meaning measure medal media meeting melody member memory mention menu
    message metal method middle midnight mile milk mill mind minimum minute mirror mission mistake
    mixture model moment money month mood moon morning mother motion motivation motor mountain
    mouse movement movie mud museum music musician mystery nail name nation nature need needle
    neighbor neighborhood nest network news newspaper night noise noon north nose notebook notice
    notion novel number nut object objective observation occasion ocean offer office officer oil
    onion opening operation opinion opportunity option orange orchard orchestra order organization
    origin outcome outline oven owl owner oxygen pace package paint painter painting pair palace
    palm pan panel paper parade parcel parent park partner partnership party passage passenger
    passion past paste path patience pattern pause payment peace peach pear pearl pebble pen
    pencil people pepper percentage performance period permission person personality perspective
    phase philosophy phone photo photograph piano picnic picture piece pillow pilot pine pipe
    place plan planet plant plate platform player pleasure pocket poem poet poetry point policy
    pond pool population position possibility post pot potato potential pottery practice praise
    preference preparation presence present pressure price pride principle printer priority prize
    problem procedure process product profession professor profile profit program progress project
    promise proof property proposal protection province pumpkin purpose puzzle quality quantity
    quarter queen quilt quiz quote rabbit race radio rail railway rain rainbow range rate reach
    reaction reader reality reason recipe recognition record recovery reference reflection refuge
    region relation relationship relief reminder rent repair repetition report research resource
    respect rest restaurant result return review reward rhythm ribbon rice riddle ride ring rise
    river road rock rocket role roof room root rope rose route routine row rule runner saddle
    safety sail sailor salad sale salt sample sand sandwich scale scene schedule scheme scholar
    school science scientist scissors screen sea search season seat second secret sector seed
    selection sense sequence series service session setting shade shadow shape share sheep sheet
    shelf shell shelter shine ship shirt shoe shop shore shoulder shower side sight sign signal
    silence silk silver singer sister site situation size skill skin sky sleep slice slope smell
    smile smoke snail snow soap society sock software soil solution song sound soup source south
    space speaker specialist speech speed spice spider spoon sport spring square squirrel stable
    staff stage stair stamp standard star start statement station statue status steam step stick
    stone storage store storm story stranger strategy straw stream street strength string
    structure student studio study style subject success sugar suggestion suit suitcase summary
    summer sun sunflower sunlight sunrise sunset supper supply support surface surprise survey
    sweater swing symbol system table tale talent talk target task taste tea teacher team
    technique technology telephone television temperature tendency tennis tent test texture
    theater theme theory thing thought thread throat thunder ticket tide tiger timber time toast
    today tomato tomorrow tone tool tooth top topic touch tour towel tower town toy track trade
    tradition traffic trail train training transition travel traveler treasure treat tree trend
    trial triangle trip trouble truck trumpet trunk trust truth tube tune tunnel turn turtle twist
    type umbrella uncle understanding union unit unity universe university update use user valley
    value van variation variety vase vegetable vehicle velvet venture version victory view village
    vine violin vision visit visitor voice volume volunteer voyage wagon waiter walk wall wallet
    warmth warning watch water waterfall wave wealth weather website wedding week weekend weight
    welcome west whale wheat wheel whisper whistle width wind window wing winner winter wire
    wisdom wish wolf wonder wood wool work worker workshop world worth writer writing yard yarn
    year yesterday youth zebra zone
    """
)
"""Things, people, places and thoughts."""
ADJECTIVES = _listed(
    """
    able absolute abstract accurate active actual additional advanced alive alternative amazing
    ambitious amusing ancient annual apparent appropriate attractive automatic available average
    aware basic beautiful beloved big bitter blank blue bold brave brief bright brilliant broad
    brown busy capable careful central certain charming cheap cheerful chief classic clean clear
    clever close cloudy cold colorful comfortable common compact competitive complete complex
    confident consistent constant contemporary convenient cool correct creative crisp critical
    crucial curious current daily damp dark dear deep delicate delicious dense dependent detailed
    different difficult digital direct distant distinct domestic dry dull eager early easy
    economic educational effective efficient elegant emotional empty endless energetic enormous
    entire environmental essential eternal everyday evident exact excellent exciting expensive
    experienced external extra extraordinary extreme familiar famous fancy fantastic fast favorite
    fine firm flat flexible fluffy foreign formal fortunate fragile free frequent fresh friendly
    full functional funny general generous gentle genuine giant glad global golden good graceful
    gradual grand grateful gray great green growing handy happy hard harmless healthy heavy
    helpful hidden high historic hollow honest huge humble hungry identical imaginary immediate
    immense important impossible impressive independent individual informal initial inner innocent
    intelligent intense interesting internal international invisible joyful keen kind large late
    lazy lean legendary likely literary little lively local logical lonely long loose loud lovely
    low loyal lucky magical magnificent main major massive mature meaningful medium mental mild
    minor mobile modern modest moral musical mysterious narrow national natural neat necessary
    negative neutral nice noble noisy normal notable noticeable numerous obvious occasional
    official old open opposite optimistic ordinary organic original outdoor outer outstanding
    overall parallel particular patient peaceful perfect permanent personal pink plain playful
    pleasant polite poor popular portable positive possible powerful practical precious precise
    previous primary prime principal private probable productive professional prominent proper
    proud public pure purple quick quiet rapid rare raw ready real realistic reasonable recent red
    regular relative relevant reliable remarkable remote responsible rich right romantic rough
    round royal rural safe salty satisfied secure sensible sensitive separate serious several
    shallow sharp shiny short shy significant silent silly similar simple sincere single slight
    slim slow small smart smooth social soft solar solid special specific spectacular splendid
    steady steep still straight strange striking strong subtle successful sudden sufficient
    suitable sunny superb superior sure surprising sweet swift tall temporary tender thick thin
    thorough thoughtful tidy tight tiny tired total traditional tremendous true typical ultimate
    unexpected unique universal unknown unlikely unusual upper urban urgent useful usual valid
    valuable various vast vibrant visible visual vital vivid warm weak weekly western wet white
    whole wide wild wise wonderful wooden yellow young
    """
)
"""What things are like; none of the nouns."""
VERBS = _listed(
    """
    accept achieve adapt admire admit adopt advise agree allow announce appear apply appreciate
    approach approve argue arrange arrive ask assist assume attach attend avoid bake become begin
    believe belong blend borrow bring build calculate carry catch celebrate choose clarify climb
    collect combine communicate compare compose concentrate confirm connect consider consist
    contain continue contribute convince count create cross decide decorate define deliver depend
    describe deserve determine develop discover discuss divide draw earn eat educate emerge
    encourage enjoy ensure enter establish evaluate examine exist expand expect explain explore
    express extend fetch fill find float flow fly follow forget forgive gain gather generate give
    glow go grow guess happen hear hide hold hurry identify illustrate imagine improve include
    indicate inform inspire install introduce invent invest invite join jump keep know laugh lead
    learn leave lend let lift listen locate look love maintain make manage mean meet mend mix
    modify move multiply observe obtain occur organize overcome perform persuade play polish pour
    prefer prepare preserve prevent proceed produce protect prove provide publish pull push put
    raise read realize recall receive recognize recommend reduce refer reflect refresh relax rely
    remain remember remind remove repeat replace represent require rescue resolve respond restore
    reveal roll run satisfy save say see seek select sell send serve settle shake show shrink
    simplify sing sit sketch solve speak spend spread stand stay stretch strive succeed suggest
    suppose surround sustain sweep swim take teach tell tend thank think throw tie trace transform
    translate try understand unfold unite vary wait wake wander want warn wash wear weave weigh
    win write yield
    """
)
"""What people and things do; none of the words above."""
ADVERBS = _listed(
    """
    above abroad almost already altogether always anyway anywhere apart aside away barely briefly
    brightly broadly carefully closely commonly constantly correctly deeply directly easily
    elsewhere entirely equally especially everywhere exactly fairly finally firmly formerly
    forward freely frequently fully gently gladly gradually greatly happily hardly immediately
    increasingly instead largely lately mainly merely mostly namely naturally nearby nearly neatly
    normally nowadays once openly otherwise partly patiently perfectly politely precisely
    previously primarily promptly properly proudly quickly quietly rapidly rarely readily recently
    regularly safely seldom separately shortly significantly silently similarly slowly smoothly
    sometimes somewhere soon specifically steadily suddenly swiftly thoroughly together warmly
    widely willingly wisely
    """
)
"""How, when and where; none of the words above."""
FILLERS = _listed(
    """
    absolutely actually amazing awesome bad basically big certainly clearly completely definitely
    essentially eventually extremely frankly generally get good great honestly hopefully however
    huge important incredibly indeed interesting just literally lot many maybe moreover
    nevertheless nice obviously occasionally perfect perhaps possibly probably quite rather really
    seriously simply slightly some somewhat stuff surely therefore thing things thus totally truly
    typically ultimately unfortunately usually very
    """
)
"""Words that an answer can do without or put better, to forbid."""
OPENERS = _listed(
    """
    after although as because before consider every finally first generally here if imagine in
    many most often once one remember since sometimes suppose then there these this today together
    usually when whenever while
    """
)
"""Words that a sentence of any kind can begin with."""
BEGINNINGS = _listed(
    """
    every here if in maybe now one people sometimes the then there this today we when you
    """
)
"""Words that every sentence of a text can begin with."""
ENDINGS = _listed(
    """
    again always around away day everyone everything forever future here home life light love more
    night now once people sky success sun there time today together tomorrow tonight too way well
    work world years you
    """
)
"""Words that a sentence of any kind can end with."""
THOUGHTS = _listed(
    """
    ability access action activity addition advantage adventure advice afternoon agreement aim
    amount area arrival aspect attempt attention attitude awareness background balance beauty
    beginning behavior benefit birth breath budget business care career cause celebration center
    challenge chance change character choice circle city class climate comfort community company
    comparison concept condition confidence connection contact context contrast control
    conversation country couple courage creation culture curve cycle day deal decade decision
    degree delay delight demand design detail development difference difficulty direction
    discovery discussion distance dream duty ease edge education effect effort element emotion
    emphasis encounter energy enjoyment environment error evening event evidence example exchange
    excitement experience experiment expert explanation exploration eye face fact factor failure
    family fashion feature feedback feeling field figure focus food form foundation freedom friend
    friendship fun function future game gap gift glance goal group growth guidance habit half hand
    happiness harmony health heart help hint history home hope hour idea imagination impact
    importance impression improvement increase influence information insight inspiration instance
    intention interest introduction journey joy judgment kindness knowledge laughter layer leader
    learning level life light limit link living location logic luck majority manner material
    matter maximum meaning measure memory method middle mind minimum minute mission mistake
    mixture moment money month mood morning motion motivation movement mystery nature need network
    night notion number object occasion opinion opportunity option order origin outcome outline
    pace pair partner passion past path patience pattern pause peace people performance period
    person personality perspective phase piece place plan planet pleasure point position
    possibility potential practice preparation presence present pressure price pride principle
    priority process product progress project promise proof proposal purpose quality quantity
    range rate reaction reality reason recognition record reference reflection relation
    relationship relief reminder research resource respect rest result return review reward rhythm
    role route routine rule safety scale scene schedule science search season sense series service
    setting shape share sight sign signal situation size skill smile solution sound source space
    speed stage standard start status step strategy strength structure study style subject success
    suggestion summary support surface surprise system talent target task taste team technique
    technology tendency theme theory thought time tone tool top topic touch tradition transition
    travel treasure trend trust truth turn type understanding unit unity value variation variety
    version victory view vision visit voice volume walk warmth wave wealth week weekend weight
    wisdom wonder work world worth year youth
    """
)
"""Those of the nouns that can stand in a text about anything."""
_PARTICULAR = _listed(
    """
    abroad aloud ancient annual bake bitter blank blue borrow brown calculate catch cheap chief
    climb cloudy cold colorful contemporary convince crisp critical cross damp dare dark decorate
    delicate delicious dense dependent digital distant divide domestic dramatic draw dry dull
    eager earn eat economic educational electric elegant emotional endless enormous environmental
    eternal external extreme fair fetch firm flat fluffy fly foreign fortunate fragile giant
    global golden gray green harmless historic hollow humble hungry hurry identical immense
    industrial initial innocent install internal international jump keen kind lean lend lonely
    loose loud lucky magical massive mature medium mend mental mild mix mobile moral multiply
    musical narrow national negative neutral noisy obtain odd official optional organic outdoor
    outer paint parallel patient persuade pink plant polish polite portable pour prevent primary
    prime principal prominent public pull pure purple push rapid raw red regional relax remote
    rescue retired rich ride roll romantic rough round royal rural sail salty seek select sell
    send separate settle shallow sharp shine shiny shrink shy silent silly sing single sit sketch
    slight slim slow smooth soft solar solid spectacular spread stable stand stay steady steep
    still straight stretch strict strive sunny superior surround sweep sweet swift swim tall
    tender thick thin throw tidy tie tight tiny tired trace translate unite unknown upper urban
    vast wake walk wander warn wash wear weave weigh western wet whisper white wild wooden yellow
    yield young
    """
)
"""Words that hint at a subject of their own."""
PLAIN = _listed(
    """
    about above across after again along among anchor area around autumn away back balance begin
    below best better between bridge bright build candle canvas carry castle change choose circle
    clean clear close coffee cold color compass copper corner cotton count cover dark deep desert
    door dragon draw early earth east engine enough even fabric farm fast feather field find fire
    floor follow food forest form free fresh friend front full game garden glacier gold grass
    great green ground group grow half hammer hand happy harbor harvest heart heavy help high hold
    home hope horizon hour house human idea inside iron island jungle keep kind kitchen lantern
    large late laugh learn leave left library light line listen little long look loud main many
    map marble mark market meadow meet mile mind mirror moon more most mountain move museum music
    name near need needle never next night north note ocean often old open orchard order other
    outside over own page paint paper part pass path pattern peace people pepper place plain
    planet plant play pocket point power press proud pull push puzzle quick rabbit rain reach read
    ready real red rest ribbon rich right ring rise river road rock rocket roof room round rule
    run saddle salt sand school sea season second seed self send sense serve shadow shape share
    short show side sign signal silver simple sing sister size sleep slow small smile snow soft
    soil some song soon sound south space speak spider stand star start station stay step still
    stone story street strong study summer sun sunset sure swim table take talk tall taste tell
    temple test thank thick thin think three thunder ticket timber time tiny tool top total town
    trade tree trip true tunnel turn uncle under unit until upper use valley value velvet village
    violin visit voice wait walk wall warm wash watch water wave weather west wheel white whole
    wide wild wind window winter wise wish wonder wood word work world write yard year yellow
    young
    """
)
"""Short words to write with, where any will do; some are among those above."""
COMMON = (*NOUNS, *ADJECTIVES, *VERBS, *ADVERBS)
"""Words to ask for in a story or a poem."""
ANYWHERE = tuple(
    word for word in (*THOUGHTS, *ADJECTIVES, *VERBS, *ADVERBS) if word not in _PARTICULAR
)
"""Words to ask for in any text."""

_IMAGINED = re.compile(r"\b(?:story|stories|tale|poem|poetry|song|scene|lyrics)\b", re.IGNORECASE)
_SPOKEN = re.compile(r"[^\W\d_]+")


def sample_words(
    rng: random.Random, count: int, choices: Iterable[str], prompt: str = ""
) -> list[str]:
    """``count`` of the ``choices``, none of which occurs in ``prompt``."""
    spoken = set(_SPOKEN.findall(prompt.casefold()))
    return rng.sample([word for word in choices if word not in spoken], count)


def spoken_nouns(prompt: str) -> list[str]:
    """The everyday nouns in ``prompt``."""
    spoken = set(_SPOKEN.findall(prompt))
    return [word for word in NOUNS if word in spoken]


def fitting_words(rng: random.Random, count: int, prompt: str) -> list[str]:
    """``count`` words to ask for: about half of them words of ``prompt``, where it has such.

    The others are of any kind where the prompt asks for a story or a poem, and general elsewhere.
    """
    own = spoken_nouns(prompt)
    chosen = rng.sample(own, min(len(own), sum(rng.random() < 0.5 for _ in range(count))))
    others = COMMON if _IMAGINED.search(prompt) else ANYWHERE
    while len(chosen) < count:
        word = rng.choice(others)
        if word not in chosen:
            chosen.append(word)
    return chosen
