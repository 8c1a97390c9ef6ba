"""The words of the word problems: names, things, and several ways to say each relation or event.

In every template `A` and `B` are people, `k`, `m` and `n` numbers, and `things` what is counted.
"""

GIRLS = (
    "Ada",
    "Bella",
    "Clara",
    "Daisy",
    "Emma",
    "Flora",
    "Grace",
    "Hana",
    "Ines",
    "Julia",
    "Kate",
    "Lena",
    "Mia",
    "Nora",
)
BOYS = (
    "Adam",
    "Ben",
    "Carl",
    "David",
    "Erik",
    "Felix",
    "George",
    "Hugo",
    "Ivan",
    "Jack",
    "Liam",
    "Max",
    "Noah",
    "Oscar",
)
THINGS = (
    "apples", "books", "marbles", "stickers", "coins", "pencils", "shells", "stamps", "cards", "cookies", "eggs",
    "flowers", "balloons", "buttons", "beads", "candies", "oranges", "pears", "plums", "stones", "tickets", "toys",
    "muffins", "photos", "badges", "lemons", "nuts", "peaches", "ribbons", "crayons",
)  # fmt: skip
CONTAINERS = ("boxes", "bags", "baskets", "jars", "trays", "crates")

TIMES = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}
FRACTIONS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}

START = (
    "{A} has {n} {things}.",
    "{A} owns {n} {things}.",
    "There are {n} {things} on {A}'s table.",
    "{A} has collected {n} {things}.",
)
START_GROUPS = (
    "{A} has {m} {containers} with {n} {things} in each.",
    "{A} owns {m} {containers}, each holding {n} {things}.",
    "There are {m} {containers} in {A}'s room with {n} {things} in each of them.",
)

# Relations: B is the new person, A is known already.
MORE = (
    "{B} has {k} more {things} than {A}.",
    "{B} has {k} {things} more than {A}.",
    "{A} has {k} fewer {things} than {B}.",
    "The number of {things} {B} has is {k} more than what {A} has.",
)
FEWER = (
    "{B} has {k} fewer {things} than {A}.",
    "{B} has {k} {things} less than {A}.",
    "{A} has {k} more {things} than {B}.",
    "{B} is {k} {things} short of what {A} has.",
)
MULTIPLE = (
    "{B} has {times} as many {things} as {A}.",
    "The number of {things} {B} has is {times} that of {A}.",
    "For every one of {A}'s {things}, {B} has {k}.",
)
FRACTION = (
    "{B} has {fraction} as many {things} as {A}.",
    "The number of {things} {B} has is {fraction} of what {A} has.",
    "{A} has {times} as many {things} as {B}.",
)
SUM = (
    "{B} has as many {things} as {A} and {C} together.",
    "Together {A} and {C} have exactly as many {things} as {B}.",
    "{B} has as many {things} as {A} and {C} combined.",
)

# Events: things happen to A's own collection, one after another.
GAIN = (
    "{A} buys {k} more {things}.",
    "Then {they} finds {k} more.",
    "A friend gives {A} {k} {things}.",
    "Later {they} gets another {k} {things}.",
)
LOSE = (
    "{A} gives {k} of them to a friend.",
    "Then {they} loses {k} of them.",
    "{A} sells {k} {things}.",
    "After that, {k} of the {things} go missing.",
)
GROW = (
    "By the end of the week {they} has {times} as many.",
    "{A} works hard until {they} has {times} as many {things}.",
    "A month later the number of {things} is {times} as large.",
)
SHARE = (
    "{A} keeps only {fraction} of them and gives away the rest.",
    "Then {they} splits the {things} equally into {k} piles and keeps one pile.",
    "{A} shares them equally among {k} people, {them} included, and keeps one share.",
)
GAIN_GROUPS = (
    "{A} buys {m} packs of {n} {things}.",
    "Then {m} friends give {A} {n} {things} each.",
    "{A} also gets {m} {containers} with {n} {things} in each.",
)
LOSE_GROUPS = (
    "{A} gives {n} {things} to each of {m} friends.",
    "Then {they} sells {m} packs of {n} {things}.",
    "{A} uses {n} of them on each of the next {m} days.",
)

ASK = (
    "How many {things} does {A} have?",
    "How many {things} are {A}'s?",
    "Find the number of {things} {A} has.",
)
ASK_NOW = (
    "How many {things} does {A} have now?",
    "How many {things} does {A} have in the end?",
    "How many {things} are left with {A}?",
)
ASK_TOGETHER = (
    "How many {things} do {A} and {B} have together?",
    "How many {things} do {A} and {B} have in total?",
)
ASK_DIFFERENCE = (
    "How many more {things} does {A} have than {B}?",
    "What is the difference between the numbers of {things} that {A} and {B} have?",
)
ASK_PRICE = (
    "Each of the {things} is worth {k} dollars. How many dollars are {A}'s {things} worth?",
    "{A} sells all {their} {things} for {k} dollars each. How many dollars does {they} get?",
)
ASK_PACK = (
    "{A} packs all {their} {things} into bags of {k}. How many bags does {they} need?",
    "{A} puts {k} {things} on each plate until none are left. How many plates does {they} use?",
)

# Facts that change nothing; a reader has to see that.
DISTRACT = (
    "{D} has {n} {other}.",
    "{A} also has {n} {other}.",
    "{D} is {n} years old.",
    "{A} lives {n} miles from {D}.",
    "Last year {D} had {n} {things}.",
)
