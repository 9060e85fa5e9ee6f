"""Names as families of an English area bear them: by custom, by sex, by generation, and with the variants they meet.

All names live in one array of words, so that a person is a handful of small integers and a swapped name is a swapped
index.  Frequent names are frequent: the n-th name of a list is drawn in proportion to 1 / (n + shift) ** slope
(Zipf-Mandelbrot), slope .9 for English surnames (which gives Smith 1.3 %, close to the 1.2 % of published UK surname
counts) and about 1 for given names.

Sources: `fusuk` 0.1.1 (MIT): 367,632 UK surnames in order of frequency, and 2,232 given names with sex but in
alphabetic order; so the head of each list of given names is ours, after the rankings that ONS publishes (baby names of
England and Wales; names of earlier decades for parents).  Lists for other customs are short: common names of each, in
rough order.  Assumption: within a custom, given name and surname are independent.
"""

# ruff: noqa: E501  (lists of names)
from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

CUSTOMS: Final = (
    "english", "welsh", "irish", "polish", "pakistani", "bangladeshi", "sikh", "hindu", "arabic", "somali", "nigerian",
    "chinese", "iberian",
)  # fmt: skip
SHARES: Final = (0.715, 0.012, 0.022, 0.028, 0.062, 0.022, 0.018, 0.028, 0.024, 0.018, 0.022, 0.012, 0.017)
"""Shares of families: after Census 2021 (England, ethnic groups of households with children); in part an assumption."""
MINORITY: Final = np.array([custom not in ("english", "welsh", "irish") for custom in CUSTOMS])

SURNAMES_READ: Final = 150_000  # the head of fusuk's list; it holds all but a few per cent of people

_GIVEN: Final = {
    "english": (
        "Noah Oliver George Arthur Leo Harry Oscar Archie Henry Theodore Freddie Jack Charlie Thomas Alfie Jacob Luca "
        "William James Joshua Teddy Isaac Lucas Max Edward Finley Joseph Alexander Logan Reuben Albie Ethan Mason "
        "Sebastian Samuel Harrison Tommy Daniel Benjamin Rory Elijah Jude Louie Hugo Toby Riley Adam Roman Bobby Ezra "
        "Frederick Jaxon Dylan Ronnie Albert Louis Matthew Zachary Tyler Ryan Callum Luke Jamie Connor Kai Kian Nathan "
        "Cameron Lewis Owen Jayden Leon Stanley Ellis Frankie Jenson Blake Caleb Michael David Liam Aiden Harley",
        "Olivia Amelia Isla Ava Ivy Freya Lily Florence Mia Willow Rosie Sophia Isabella Grace Daisy Sienna Poppy Elsie "
        "Emily Ella Evelyn Phoebe Evie Charlotte Millie Sophie Matilda Isabelle Ruby Maisie Alice Emilia Harper Mila "
        "Ada Eva Bonnie Luna Jessica Penelope Esme Maya Chloe Eliza Arabella Violet Thea Lola Scarlett Erin Imogen "
        "Eleanor Lottie Summer Nancy Robyn Orla Zara Lucy Holly Molly Amber Abigail Megan Caitlin Amy Hannah Lexi "
        "Gracie Darcie Skye Lilly Heidi Elizabeth Lyla Maryam Jasmine Martha Georgia Aurora Tilly Libby Niamh Zoe",
    ),
    "english_adult": (
        "David Paul Mark Andrew Christopher James Daniel Matthew Michael Richard Stephen Robert Lee Simon Adam Jonathan "
        "Thomas Craig Anthony Benjamin Darren Gary Ian Kevin Philip Peter Neil Stuart Scott Ryan Liam Luke Dean Wayne "
        "Carl Jason Nathan Martin Shaun Nicholas Alan Aaron Ross Jamie Karl Gareth Jordan Ashley Graham Kyle",
        "Sarah Claire Emma Laura Rebecca Gemma Rachel Kelly Victoria Katherine Lisa Michelle Nicola Amy Jennifer Joanne "
        "Leanne Samantha Natalie Donna Hannah Charlotte Stacey Kerry Louise Lucy Jessica Amanda Hayley Kirsty Helen "
        "Stephanie Danielle Lindsey Zoe Karen Jodie Katie Angela Julie Chloe Tracey Sophie Kimberley Cheryl Carly Tina "
        "Natasha Vicky Lauren",
    ),
    "welsh": (
        "Rhys Dylan Osian Macsen Ieuan Gethin Iwan Gruffydd Harri Ifan Tomos Cai Steffan Emrys Owain Llŷr Evan Morgan",
        "Ffion Seren Cari Megan Mali Nia Efa Carys Lowri Eleri Bethan Cerys Gwen Erin Elin Siân Angharad Catrin",
    ),
    "irish": (
        "Conor Sean Patrick Finn Cillian Oisín Daniel Rory Declan Ciarán Liam Eoin Aidan Brendan Tadhg Kieran Darragh",
        "Aoife Niamh Orla Saoirse Caoimhe Róisín Ciara Sinéad Erin Clodagh Siobhán Maeve Bridget Eimear Aisling Mary",
    ),
    "polish": (
        "Jakub Antoni Filip Kacper Szymon Aleksander Mateusz Oskar Michał Wojciech Bartosz Dawid Piotr Paweł Adam "
        "Krzysztof Tomasz Marcin Łukasz Marek Grzegorz Kamil",
        "Zuzanna Julia Maja Zofia Hanna Lena Alicja Oliwia Nikola Wiktoria Amelia Natalia Anna Katarzyna Małgorzata "
        "Agnieszka Magdalena Aleksandra Ewa Joanna Monika Karolina",
    ),
    "pakistani": (
        "Muhammad Mohammed Ibrahim Yusuf Zain Hamza Ali Ahmed Hassan Abdullah Adam Zayn Umar Bilal Haris Usman Imran "
        "Ismail Eesa Musa Rayyan Faisal Kamran Tariq Asif Nadeem Shahid Adeel Idris Zakariya Hashim",
        "Aisha Fatima Maryam Zara Zainab Khadija Amina Hafsa Aliza Inaya Safa Anaya Iqra Sana Noor Maria Ayesha Hira "
        "Saima Nadia Shazia Rukhsana Nasreen Samina Farah Rabia Sumaiya Bushra Haleema Mahnoor",
    ),
    "bangladeshi": (
        "Mohammed Muhammad Ibrahim Yusuf Abdul Tahmid Rahim Karim Hasan Arif Nazmul Mahbub Shafiq Tanvir Zakir Adam "
        "Ayaan Rayhan Faruk Jubayer",
        "Fatima Nusrat Sumaiya Tahmina Ayesha Maryam Shahida Rahima Nasima Tasnim Sadia Jannat Farhana Rubina Salma "
        "Halima Zara Inaya Momena Shirin",
    ),
    "sikh": (
        "Arjan Gurpreet Harjit Jasdeep Manpreet Sukhdeep Amrit Harpreet Jaskaran Gurdeep Rajan Baljit Karan Parminder "
        "Kuldeep Veer Fateh Armaan Avtar Balwinder",
        "Simran Jasleen Harleen Manpreet Gurpreet Amrit Harpreet Kiran Navdeep Jaspreet Sukhdeep Parminder Baljit Anaya "
        "Asees Mehar Rajinder Kulwinder Jasmin Ravneet",
    ),
    "hindu": (
        "Aarav Krish Rohan Dev Arjun Vihaan Aryan Dhruv Nikhil Ravi Sanjay Rahul Amit Hiten Jay Kishan Nilesh Anil "
        "Pranav Ishaan Vivaan Shiv Mitesh Rajesh",
        "Diya Anaya Riya Aarya Isha Priya Anjali Kavya Mira Nisha Pooja Hetal Bhavna Sonal Jaina Kiran Meera Saanvi "
        "Avni Shreya Trisha Nikita Reena Jyoti",
    ),
    "arabic": (
        "Mohamed Ahmed Omar Yousef Ali Ibrahim Khaled Mahmoud Hassan Hussein Abdulrahman Karim Tarek Samir Nasser "
        "Mustafa Yahya Zaid Hamza Bilal Adnan Walid",
        "Fatima Maryam Aya Sara Noor Layla Salma Yasmin Huda Zeinab Amal Rania Hanan Lina Dina Khadija Samira Nadia "
        "Rahaf Jana Malak Iman",
    ),
    "somali": (
        "Mohamed Abdi Ahmed Abdirahman Ali Hassan Ibrahim Abdullahi Yusuf Omar Ismail Mahamed Abdulkadir Farah Jama "
        "Warsame Hussein Osman Mustafa Bashir Liban Guled",
        "Fadumo Amina Hodan Asha Halimo Khadra Sahra Ayaan Hibo Ifrah Maryan Nimo Sagal Ubah Zamzam Faiza Ikran Hamda "
        "Safiya Deqa",
    ),
    "nigerian": (
        "Emmanuel David Daniel Samuel Chukwuemeka Oluwaseun Tobiloba Ayomide Chidi Ifeanyi Kelechi Ayodele Babatunde "
        "Temitope Joshua Michael Olumide Obinna Segun Tunde Adebayo Ebuka",
        "Chiamaka Oluwaseun Temitope Ayomide Blessing Grace Deborah Esther Adaeze Ngozi Folake Ifeoma Chioma Bukola "
        "Yetunde Titilayo Precious Ruth Simisola Amaka Nkechi Funmilayo",
    ),
    "chinese": (
        "Wei Jun Ming Hao Jie Yi Chen Zihan Haoran Yuxuan Kai Jason Kevin Tian Bo Lei Feng Yong Ho-Yin Ka-Ming Chun "
        "Zhiwei Jiahao",
        "Mei Xin Yan Ling Jing Yue Xiaoyu Zihan Yutong Hui Fang Lan Wing Ka-Yan Wai-Ling Emily Ying Na Lihua Xue Jia "
        "Shu Siqi",
    ),
    "iberian": (
        "João Miguel Diogo Tiago Rodrigo Mateo Santiago Diego Carlos José Pedro Luís Antonio Javier Manuel Daniel "
        "Alejandro Rafael Gonçalo André",
        "Maria Leonor Matilde Beatriz Sofía Lucía Martina Ana Carolina Inês Carmen Isabel Paula Lara Valentina Camila "
        "Mariana Rosa Laura Conceição",
    ),
}  # fmt: skip

_FAMILY: Final = {
    "welsh": "Jones Williams Davies Evans Thomas Roberts Lewis Hughes Morgan Griffiths Owen Price Rees Lloyd Morris "
    "Jenkins Powell Pritchard Parry Bowen Llewellyn Gwynne Vaughan Prosser Bevan Meredith Howells Probert",
    "irish": "Murphy Kelly O'Brien Byrne Ryan O'Connor O'Neill O'Reilly Doyle McCarthy Gallagher Doherty Kennedy Lynch "
    "Murray Quinn Moore McLoughlin O'Carroll Connolly Daly O'Sullivan Nolan O'Leary McDonagh Brennan Burke Collins "
    "O'Donnell O'Callaghan Fitzgerald Maguire Ward McGinley O'Driscoll O'Hara",
    "polish": "Nowak Kowalski Wiśniewski Wójcik Kowalczyk Kamiński Lewandowski Zieliński Szymański Woźniak Dąbrowski "
    "Kozłowski Jankowski Mazur Wojciechowski Kwiatkowski Krawczyk Kaczmarek Piotrowski Grabowski Zając Pawłowski "
    "Michalski Król Wieczorek Jabłoński Wróbel Nowakowski Majewski Olszewski Stępień Malinowski Jaworski Adamczyk",
    "pakistani": "Khan Hussain Ahmed Ali Malik Mahmood Iqbal Akhtar Shah Mohammed Hussein Butt Mirza Aslam Sheikh "
    "Rashid Chaudhry Raja Saleem Afzal Bashir Anwar Mehmood Qureshi Siddiqui Javed Hanif Riaz Yousaf Sharif Zaman",
    "pakistani_mother": "Begum Bibi Akhtar Kauser Khatoon Parveen Bi Khan Hussain Sultana Shaheen Nazir",
    "bangladeshi": "Ahmed Miah Uddin Islam Rahman Ali Hussain Hoque Chowdhury Khan Alam Khatun Haque Choudhury Kamal "
    "Sarkar Talukdar Mia Ullah Hossain",
    "bangladeshi_mother": "Begum Khatun Khanom Akter Sultana Bibi Nessa Khanam",
    "sikh": "Gill Dhillon Sandhu Sidhu Dhaliwal Grewal Bains Johal Sahota Atwal Uppal Mann Chahal Virk Rai Kang Purewal",
    "hindu": "Patel Shah Sharma Mistry Desai Parmar Solanki Chauhan Joshi Mehta Gupta Kumar Reddy Nair Iyer Rao Amin "
    "Lad Naik Modi Pandya Trivedi Lakhani Bhatt Vyas Tailor Prajapati Thakkar Kotecha Agarwal",
    "arabic": "Ahmed Ali Hassan Hussein Mohamed Ibrahim Mahmoud Al-Hassan El-Sayed Abdallah Salem Saleh Al-Masri Khalil "
    "Haddad Al-Ahmad Omar Nasser Farouk Al-Jabouri El-Amin Mansour Darwish Kassem Al-Khatib Issa Yassin Hamdan",
    "chinese": "Chen Wang Li Zhang Liu Wong Chan Lin Yang Huang Wu Zhou Zhao Xu Sun Ma Zhu Hu Guo He Lau Cheung Leung Ng "
    "Ho Lam Cheng Yip Tang Tse Zheng Liang",
    "iberian": "Silva Santos Ferreira Pereira Oliveira Costa Rodrigues Martins Sousa Fernandes Gonçalves Gomes Lopes "
    "Marques Almeida García Fernández González Rodríguez López Martínez Sánchez Pérez Gómez Ruiz Díaz Moreno Álvarez "
    "Romero Torres Vieira Pinto Ribeiro Carvalho",
    "nigerian": "Okafor Adeyemi Okeke Eze Nwosu Obi Okoro Adebayo Ogunleye Okonkwo Balogun Afolabi Olawale Chukwu Ojo "
    "Abiola Onyeka Adekunle Nwachukwu Oyelaran Ibrahim Bello Musa Ogbonna Akinyemi Uche",
}  # fmt: skip
_NIGERIAN_STARTS: Final = ("Ade", "Ola", "Oko", "Ogu", "Chuk", "Nwa", "Olu", "Eze", "Oye", "Akin", "Onye", "Ike")
_POLISH_ENDS: Final = ("owski", "ewski", "inski", "ynski", "owicz", "ewicz", "czyk", "czak")

_VARIANTS: Final = (
    "Muhammad Mohammed Mohamed Mohammad Muhammed", "Hussain Hussein Husain", "Ahmed Ahmad", "Yusuf Yousef Yousaf Yusef",
    "Aisha Ayesha Aysha", "Fatima Fatimah", "Maryam Mariam Maryan", "Zainab Zeinab Zaynab", "Khadija Khadijah",
    "Hassan Hasan", "Umar Omar", "Chaudhry Choudhury Chowdhury Choudhry", "Abdullah Abdallah Abdulla",
    "Abdirahman Abdurahman Abdulrahman", "Fadumo Faduma Fatuma", "Mahmood Mehmood Mahmoud", "Sheikh Shaikh",
    "Siddiqui Siddique", "Ibrahim Ebrahim", "Idris Idrees", "Zain Zayn", "Zara Zahra", "Noor Nur", "Layla Leila",
    "Hoque Haque", "Miah Mia", "Islam Aslam", "Yasmin Yasmeen", "Chen Chan", "Zhang Cheung", "Wang Wong", "Lin Lam",
    "Huang Wong", "Sofía Sofia Sophia", "Agarwal Aggarwal", "Catherine Katherine Kathryn", "Sean Shaun Shawn",
    "Stephen Steven", "Isabelle Isabel Isobel", "Sophie Sofie", "Amelia Emilia", "Zoe Zoë", "Niamh Neve", "Erin Eryn",
    "Aiden Aidan", "Jaxon Jackson", "Reece Rhys", "Clark Clarke", "Brown Browne", "Davies Davis", "Philips Phillips",
    "Thompson Thomson", "Read Reid Reed", "Harrison Harison", "Johnston Johnson", "Stewart Stuart", "Allen Allan",
    "Carr Kerr", "Green Greene", "Shepherd Sheppard", "Nicholls Nichols", "Mathews Matthews", "Lilly Lily", "Lyla Lila",
    "Al-Hassan Alhassan El-Hassan", "El-Sayed Alsayed Elsayed", "O'Reilly Reilly", "O'Neill O'Neil Neill",
    "Oluwaseun Seun", "Temitope Temi", "Ayomide Ayo", "Chukwuemeka Emeka",
)  # fmt: skip
_KNOWN_AS: Final = (
    "Thomas:Tom William:Will:Billy:Bill Benjamin:Ben Joshua:Josh Alexander:Alex James:Jamie:Jim Daniel:Dan:Danny "
    "Matthew:Matt Samuel:Sam Joseph:Joe Michael:Mike:Mikey Christopher:Chris Robert:Rob:Bob Richard:Rick Andrew:Andy "
    "Anthony:Tony Edward:Ted:Teddy Charlie:Charles Theodore:Theo Frederick:Fred:Freddie Harrison:Harry Zachary:Zac "
    "Nicholas:Nick Jonathan:Jon Stephen:Steve David:Dave Thomas:Tommy Elijah:Eli Albert:Albie Cameron:Cam Nathan:Nate "
    "Isabella:Bella:Izzy Isabelle:Izzy Elizabeth:Beth:Lizzie:Libby Eleanor:Ellie Charlotte:Lottie:Charlie Matilda:Tilly "
    "Emily:Em Olivia:Liv:Livvy Amelia:Millie Abigail:Abi Jessica:Jess Rebecca:Becky Katherine:Kate:Katie Jennifer:Jen "
    "Victoria:Vicky Samantha:Sam Natalie:Nat Stephanie:Steph Penelope:Penny Florence:Flo Margaret:Maggie Megan:Meg "
    "Scarlett:Scar Georgia:Georgie Josephine:Josie Arabella:Bella Katarzyna:Kasia Małgorzata:Gosia Agnieszka:Aga "
    "Magdalena:Magda Aleksandra:Ola Krzysztof:Chris Wojciech:Wojtek Aleksander:Alex Muhammad:Ali Mohammed:Mo Mohamed:Mo "
    "Oluwaseun:Seun Temitope:Temi Chukwuemeka:Emeka Haoran:Howard Yuxuan:Eric Zihan:Zoe Yutong:Tina Manpreet:Mandy "
    "Harpreet:Harry Gurpreet:Gary Sukhdeep:Sukhi"
)  # fmt: skip

_NATIVE: Final[dict[str, str]] = {
    "chinese": "Wei:伟 Jun:军 Ming:明 Hao:浩 Jie:杰 Yi:毅 Zihan:子涵 Haoran:浩然 Yuxuan:宇轩 Kai:凯 Tian:天 Bo:波 Lei:磊 "
    "Feng:峰 Yong:勇 Chun:春 Zhiwei:志伟 Jiahao:家豪 Mei:梅 Xin:欣 Yan:燕 Ling:玲 Jing:静 Yue:月 Xiaoyu:晓雨 Yutong:雨桐 "
    "Hui:慧 Fang:芳 Lan:兰 Ying:英 Na:娜 Lihua:丽华 Xue:雪 Jia:佳 Shu:淑 Siqi:思琪 Chen:陈 Wang:王 Li:李 Zhang:张 Liu:刘 "
    "Wong:黄 Chan:陈 Lin:林 Yang:杨 Huang:黄 Wu:吴 Zhou:周 Zhao:赵 Xu:徐 Sun:孙 Ma:马 Zhu:朱 Hu:胡 Guo:郭 He:何",
    "arabic": "Mohamed:محمد Ahmed:أحمد Omar:عمر Yousef:يوسف Ali:علي Ibrahim:إبراهيم Khaled:خالد Mahmoud:محمود Hassan:حسن "
    "Hussein:حسين Abdulrahman:عبدالرحمن Karim:كريم Tarek:طارق Samir:سمير Mustafa:مصطفى Yahya:يحيى Zaid:زيد Hamza:حمزة "
    "Fatima:فاطمة Maryam:مريم Aya:آية Sara:سارة Noor:نور Layla:ليلى Salma:سلمى Yasmin:ياسمين Huda:هدى Zeinab:زينب "
    "Amal:أمل Rania:رانيا Hanan:حنان Lina:لينا Dina:دينا Khadija:خديجة Samira:سميرة Nadia:نادية Jana:جنى Malak:ملاك "
    "Abdallah:عبدالله Salem:سالم Saleh:صالح Khalil:خليل Haddad:حداد Mansour:منصور Darwish:درويش Issa:عيسى Hamdan:حمدان",
}
"""By custom, a name and how it is written in its own script."""

GIVEN_SENTINELS: Final = ("Baby", "Unborn", "Infant", "Twin1", "Twin2", "Baby Boy", "Baby Girl")
CANARY: Final = ("Zzyxcanaryella", "Zzyxcanarybert", "Zzyxcanarydotter", "Zzyxcanaryson")
"""Words that nobody bears; the second half are surnames."""
CANARY_STREET: Final = "Zzyxcanary Mews"


@dataclass(frozen=True, slots=True)
class Draw:
    """A list to draw names from: indices into the words, and their cumulative probability."""

    words: Ints
    cumulative: Floats

    def __call__(self, uniform: Floats) -> Ints:
        """One name for each number in [0, 1)."""
        place = np.searchsorted(self.cumulative, uniform, side="right")
        return self.words[np.minimum(place, len(self.words) - 1)]


@dataclass(slots=True)
class NameBook:
    """Every word, and the lists of them.  `given[custom][sex]` with sex 0 male, 1 female; adults' lists beside."""

    words: list[str] = field(default_factory=list)
    at: dict[str, int] = field(default_factory=dict)
    given: dict[str, tuple[Draw, Draw]] = field(default_factory=dict)
    family: dict[str, Draw] = field(default_factory=dict)
    feminine: Ints = field(default_factory=lambda: np.zeros(0, np.int32))
    variant: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    known_as: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    initial: Ints = field(default_factory=lambda: np.zeros(0, np.int32))
    native: dict[str, list[str | None]] = field(default_factory=dict)  # by custom: a word in its own script

    def word(self, text: str) -> int:
        """The index of a word, made if need be."""
        if (place := self.at.get(text)) is None:
            place = self.at[text] = len(self.words)
            self.words.append(text)
        return place

    def draw_of(self, names: Sequence[str], *, slope: float, shift: float) -> Draw:
        """A list in order of frequency, drawn as Zipf and Mandelbrot say."""
        distinct = list(dict.fromkeys(names))
        weights = 1.0 / np.power(np.arange(1, len(distinct) + 1) + shift, slope)
        return Draw(np.array([self.word(name) for name in distinct], np.int32), np.cumsum(weights / weights.sum()))


@lru_cache(maxsize=1)
def name_book() -> NameBook:
    """The names, read once.  fusuk's files are read as data: importing it would load 45 MB of American surnames."""
    book = NameBook()
    for word in (*GIVEN_SENTINELS, *CANARY):
        book.word(word)
    spec = importlib.util.find_spec("fusuk")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the package fusuk, of the extra `evaluation`, is not installed")
    data = Path(spec.origin).parent / "data"
    listed = json.loads((data / "uk_first_names.json").read_text("utf-8"))
    tail: tuple[list[str], list[str]] = ([], [])
    for entry in listed:
        tail[entry["gender"] == "female"].append(entry["name"])
    shuffle = np.random.default_rng(1837)  # the year of civil registration; only the order of the tail hangs on it
    tails = [[names[place] for place in shuffle.permutation(len(names))] for names in tail]
    for custom, (boys, girls) in _GIVEN.items():
        lists = [boys.split(), girls.split()]
        if custom.startswith("english"):
            lists = [[*head, *rest] for head, rest in zip(lists, tails, strict=True)]
        book.given[custom] = tuple(  # type: ignore[assignment]
            book.draw_of(names, slope=1.0 if len(names) > 100 else 0.75, shift=12.0 if len(names) > 100 else 2.0)
            for names in lists
        )
    for custom in CUSTOMS:
        adult = custom + "_adult"
        book.given.setdefault(adult, book.given[custom])
    with (data / "uk_last_names.txt").open(encoding="utf-8") as lines:
        common = [name for name in (line.strip() for line, _ in zip(lines, range(SURNAMES_READ), strict=False)) if name]
    _surnames(book, common)
    _relations(book)
    return book


def _surnames(book: NameBook, common: list[str]) -> None:
    lists = {custom: names.split() for custom, names in _FAMILY.items()}
    lists["polish"] += [name for name in common if name.endswith(_POLISH_ENDS)][:1200]
    lists["nigerian"] += [name for name in common if name.startswith(_NIGERIAN_STARTS) and len(name) > 5][:900]
    lists["hindu"] += [name for name in common if name.endswith(("bhai", "wala", "kumar"))][:150]
    elsewhere = {name for custom, names in lists.items() if custom not in ("welsh", "irish") for name in names}
    elsewhere |= {"Singh", "Kaur"}
    lists["english"] = [name for name in common if name not in elsewhere and "-" not in name]
    lists["somali"] = _GIVEN["somali"][0].split()  # a grandfather's given name stands where a surname is asked for
    for custom, names in lists.items():
        long = len(names) > 10_000
        book.family[custom] = book.draw_of(names, slope=0.9 if long else 0.8, shift=3.0)
    book.family["sikh_name"] = book.draw_of(["Singh", "Kaur"], slope=0.0, shift=0.0)


def _relations(book: NameBook) -> None:
    """Fill feminine forms, spelling variants (two a name) and short forms (two a name); -1 where there is none."""
    groups = [group.split() for group in _VARIANTS]
    shorts = [entry.split(":") for entry in _KNOWN_AS.split()]
    for group in (*groups, *shorts):
        for name in group:
            book.word(name)
    feminine = {place: book.word(name[:-1] + "a") for name, place in list(book.at.items()) if name.endswith("ski")}
    size = len(book.words)
    book.feminine = np.arange(size, dtype=np.int32)
    book.feminine[list(feminine)] = list(feminine.values())
    book.variant = np.full((size, 2), -1, np.int32)
    for group in groups:
        for place, name in enumerate(group):
            book.variant[book.at[name]] = [
                book.at[group[(place + 1) % len(group)]], book.at[group[(place + 2) % len(group)]],
            ]  # fmt: skip
    same = book.variant == np.arange(size)[:, None]
    book.variant[same] = np.broadcast_to(book.variant[:, :1], book.variant.shape)[same]
    book.known_as = np.full((size, 2), -1, np.int32)
    for name, *forms in shorts:
        book.known_as[book.at[name]] = [book.at[forms[0]], book.at[forms[-1]]]
    for custom, listed in _NATIVE.items():
        written = dict(entry.split(":") for entry in listed.split())
        book.native[custom] = [written.get(word) for word in book.words]
    book.initial = np.array([ord(word[0].upper()) for word in book.words], np.int32)
