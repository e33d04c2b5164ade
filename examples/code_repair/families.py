"""Families of small functions: one idea each, in words that are drawn anew for every row.

A family is a source text with `$` places for names and constants, other names for its function, and the calls that its
assertions make. Nothing is drawn or run here.
"""

from __future__ import annotations

from dataclasses import dataclass

POOLS = {
    "xs x": ["numbers number", "values value", "items item", "readings reading", "scores score", "prices price",
             "weights weight", "points point", "amounts amount", "marks mark"],
    "ws w": ["words word", "names name", "lines line", "titles title", "labels label", "tags tag"],
    "t": ["text", "word", "sentence", "phrase", "message", "line"],
    "c": ["letter", "character", "symbol", "sign", "mark"],
    "acc": ["total", "result", "answer", "found", "outcome", "value_so_far"],
    "out": ["kept", "results", "chosen", "output", "collected", "built"],
    "best": ["best", "top", "winner", "champion", "current"],
    "n": ["n", "count", "size", "number", "amount", "steps"],
    "a b": ["a b", "first second", "left right", "x y", "one other"],
    "i": ["i", "index", "place", "position", "step"],
    "d": ["table", "counts", "mapping", "register", "lookup"],
    "key val": ["key value", "name amount", "word count", "code price"],
    "k": ["2", "3", "4", "5", "6", "7"],
    "j": ["10", "12", "20", "25", "50", "100"],
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One idea. `names` are what its function may be called; `calls` the arguments of its assertions."""

    names: str
    source: str
    calls: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names.split()[0]


def _f(names: str, source: str, *calls: str) -> Family:
    return Family(names, source.strip("\n"), calls)


FAMILIES = (
    _f("sum_of_squares square_sum", '''
def $f($xs):
    """Return the sum of the squares of the $xs."""
    $acc = 0
    for $x in $xs:
        $acc += $x * $x
    return $acc
''', "[1, 2, 3]", "[$k, 4]", "[]"),
    _f("count_above how_many_above", '''
def $f($xs, limit):
    """Return how many of the $xs are greater than the limit."""
    $acc = 0
    for $x in $xs:
        if $x > limit:
            $acc += 1
    return $acc
''', "[1, 5, 9], 4", "[$k, $j], $k", "[2, 2], 2"),
    _f("largest find_largest biggest", '''
def $f($xs):
    """Return the largest of the $xs."""
    $best = $xs[0]
    for $x in $xs[1:]:
        if $x > $best:
            $best = $x
    return $best
''', "[3, $j, 2]", "[7]", "[-4, -2, -9]"),
    _f("smallest find_smallest lowest", '''
def $f($xs):
    """Return the smallest of the $xs."""
    $best = $xs[0]
    for $x in $xs[1:]:
        if $x < $best:
            $best = $x
    return $best
''', "[3, $j, 2]", "[7]", "[-4, -2, -9]"),
    _f("average mean_of", '''
def $f($xs):
    """Return the mean of the $xs, or 0 if there are none."""
    if not $xs:
        return 0
    $acc = sum($xs)
    return $acc / len($xs)
''', "[1, 2, 3]", "[$k, $j]", "[]"),
    _f("factorial product_up_to", '''
def $f($n):
    """Return the product of the whole numbers from 1 to $n."""
    $acc = 1
    for $i in range(1, $n + 1):
        $acc *= $i
    return $acc
''', "0", "$k", "5"),
    _f("sum_up_to triangle_number", '''
def $f($n):
    """Return the sum of the whole numbers from 1 to $n."""
    $acc = 0
    for $i in range(1, $n + 1):
        $acc += $i
    return $acc
''', "1", "$k", "$j"),
    _f("power raise_to", '''
def $f(base, $n):
    """Return the base multiplied by itself $n times."""
    $acc = 1
    for _ in range($n):
        $acc *= base
    return $acc
''', "2, $k", "$k, 2", "9, 0"),
    _f("fibonacci fib", '''
def $f($n):
    """Return the Fibonacci number at place $n, where places 0 and 1 hold 0 and 1."""
    $a, $b = 0, 1
    for _ in range($n):
        $a, $b = $b, $a + $b
    return $a
''', "0", "$k", "10"),
    _f("greatest_common_divisor gcd", '''
def $f($a, $b):
    """Return the greatest number that divides both."""
    while $b:
        $a, $b = $b, $a % $b
    return $a
''', "12, 18", "$j, $k", "7, 13"),
    _f("is_prime prime", '''
def $f($n):
    """Tell whether $n is a prime number."""
    if $n < 2:
        return False
    for $i in range(2, $n):
        if $n % $i == 0:
            return False
    return True
''', "1", "$k", "$j", "13"),
    _f("digit_sum sum_of_digits", '''
def $f($n):
    """Return the sum of the digits of $n."""
    $acc = 0
    while $n > 0:
        $acc += $n % 10
        $n //= 10
    return $acc
''', "0", "$j", "9$k"),
    _f("count_vowels vowels", '''
def $f($t):
    """Return how many vowels the $t has."""
    $acc = 0
    for $c in $t.lower():
        if $c in "aeiou":
            $acc += 1
    return $acc
''', '"banana"', '"Orange"', '"rhythm"'),
    _f("reverse_text backwards", '''
def $f($t):
    """Return the $t backwards."""
    $out = ""
    for $c in $t:
        $out = $c + $out
    return $out
''', '"lamp"', '"a b c"', '""'),
    _f("is_palindrome palindrome", '''
def $f($t):
    """Tell whether the $t reads the same from both ends, whatever its case."""
    $t = $t.lower()
    for $i in range(len($t) // 2):
        if $t[$i] != $t[-1 - $i]:
            return False
    return True
''', '"level"', '"Anna"', '"apple"'),
    _f("count_words word_count", '''
def $f($t):
    """Return how often each word stands in the $t."""
    $d = {}
    for word in $t.split():
        $d[word] = $d.get(word, 0) + 1
    return $d
''', '"a b a"', '"red red red"', '""'),
    _f("longest_word find_longest", '''
def $f($ws):
    """Return the longest of the $ws; the first of them, if several are as long."""
    $best = ""
    for $w in $ws:
        if len($w) > len($best):
            $best = $w
    return $best
''', '["a", "abc", "ab"]', '["xy", "zz"]', "[]"),
    _f("initials first_letters", '''
def $f($ws):
    """Return the first letter of each of the $ws, as capitals."""
    $out = ""
    for $w in $ws:
        $out += $w[0].upper()
    return $out
''', '["anna", "bo"]', '["Carl"]', "[]"),
    _f("remove_duplicates unique", '''
def $f($xs):
    """Return the $xs in their order, each only once."""
    $out = []
    for $x in $xs:
        if $x not in $out:
            $out.append($x)
    return $out
''', "[1, 2, 1]", "[$k, $k, $j]", "[]"),
    _f("only_even keep_even", '''
def $f($xs):
    """Return those of the $xs that are even."""
    $out = []
    for $x in $xs:
        if $x % 2 == 0:
            $out.append($x)
    return $out
''', "[1, 2, 3, 4]", "[$j, $k]", "[]"),
    _f("only_positive keep_positive", '''
def $f($xs):
    """Return those of the $xs that are greater than 0."""
    $out = []
    for $x in $xs:
        if $x > 0:
            $out.append($x)
    return $out
''', "[-1, 2, 0]", "[$j, -$k]", "[]"),
    _f("scale_all multiply_all", '''
def $f($xs, factor):
    """Return each of the $xs times the factor."""
    $out = []
    for $x in $xs:
        $out.append($x * factor)
    return $out
''', "[1, 2], $k", "[$j], 2", "[], 3"),
    _f("running_totals sums_so_far", '''
def $f($xs):
    """Return, for each of the $xs, the sum of all up to it."""
    $out = []
    $acc = 0
    for $x in $xs:
        $acc += $x
        $out.append($acc)
    return $out
''', "[1, 2, 3]", "[$k, $j]", "[]"),
    _f("differences gaps", '''
def $f($xs):
    """Return how much each of the $xs is greater than the one before it."""
    $out = []
    for $i in range(1, len($xs)):
        $out.append($xs[$i] - $xs[$i - 1])
    return $out
''', "[1, 4, 9]", "[$j, $k]", "[5]"),
    _f("clamp limit_to", '''
def $f($x, low, high):
    """Return the $x, but never less than low nor more than high."""
    if $x < low:
        return low
    if $x > high:
        return high
    return $x
''', "5, 0, $k", "-1, 0, $k", "1, 0, $k"),
    _f("sign_of sign", '''
def $f($x):
    """Return 1 for a positive $x, -1 for a negative one, and 0 for zero."""
    if $x > 0:
        return 1
    if $x < 0:
        return -1
    return 0
''', "$k", "-$j", "0"),
    _f("price_with_discount discounted", '''
def $f(price, $n):
    """Return what $n pieces cost; from $j pieces on, a tenth less."""
    $acc = price * $n
    if $n >= $j:
        $acc = $acc - $acc / 10
    return $acc
''', "$k, 2", "2, $j", "1, 200"),
    _f("shipping_cost postage", '''
def $f(weight):
    """Return $k up to a weight of $j, and twice as much above it."""
    cost = $k
    if weight > $j:
        cost = cost * 2
    return cost
''', "1", "$j", "1000"),
    _f("grade_of grade", '''
def $f(points):
    """Return A from 90 points on, B from 75 on, and C below."""
    if points >= 90:
        return "A"
    if points >= 75:
        return "B"
    return "C"
''', "95", "90", "75", "$j"),
    _f("leap_year is_leap", '''
def $f(year):
    """Tell whether the year has a 29 February."""
    if year % 400 == 0:
        return True
    if year % 100 == 0:
        return False
    return year % 4 == 0
''', "2000", "1900", "2024", "2023"),
    _f("minutes_as_text as_clock", '''
def $f(minutes):
    """Return the minutes as hours and minutes, such as 1:05."""
    hours = minutes // 60
    rest = minutes % 60
    return f"{hours}:{rest:02d}"
''', "65", "$j", "600"),
    _f("to_fahrenheit fahrenheit", '''
def $f(degrees):
    """Return the degrees of Celsius in Fahrenheit."""
    $acc = degrees * 9 / 5
    return $acc + 32
''', "0", "100", "$j"),
    _f("index_of find_place", '''
def $f($xs, wanted):
    """Return the place of the first of the $xs that is the wanted one, or -1."""
    for $i in range(len($xs)):
        if $xs[$i] == wanted:
            return $i
    return -1
''', "[5, 6, 7], 6", "[1], $j", "[$k, $k], $k"),
    _f("dot_product inner_product", '''
def $f($a, $b):
    """Return the sum of the products of the numbers at the same place."""
    $acc = 0
    for $i in range(len($a)):
        $acc += $a[$i] * $b[$i]
    return $acc
''', "[1, 2], [3, 4]", "[$k], [$j]", "[], []"),
    _f("swap_keys invert", '''
def $f($d):
    """Return a dictionary in which keys and values have changed places."""
    $out = {}
    for $key, $val in $d.items():
        $out[$val] = $key
    return $out
''', '{"a": 1, "b": $j}', '{"x": "y"}', "{}"),
    _f("total_value sum_of_values", '''
def $f($d):
    """Return the sum of all values of the dictionary."""
    $acc = 0
    for $key in $d:
        $acc += $d[$key]
    return $acc
''', '{"a": 1, "b": $j}', '{"x": $k}', "{}"),
    _f("group_by_length by_length", '''
def $f($ws):
    """Return the $ws by their length: for each length the list of those that have it."""
    $d = {}
    for $w in $ws:
        if len($w) not in $d:
            $d[len($w)] = []
        $d[len($w)].append($w)
    return $d
''', '["a", "bc", "d"]', '["xyz"]', "[]"),
    _f("merge_counts add_counts", '''
def $f($a, $b):
    """Return the sums of two dictionaries of counts, key by key."""
    $out = dict($a)
    for $key, $val in $b.items():
        $out[$key] = $out.get($key, 0) + $val
    return $out
''', '{"a": 1}, {"a": $k}', '{"a": 1}, {"b": 2}', "{}, {}"),
    _f("count_matches equal_places", '''
def $f($a, $b):
    """Return at how many places the two texts have the same letter."""
    $acc = 0
    for one_letter, other_letter in zip($a, $b):
        if one_letter == other_letter:
            $acc += 1
    return $acc
''', '"cat", "car"', '"ab", "ba"', '"", "x"'),
    _f("repeat_text times", '''
def $f($t, $n):
    """Return the $t written $n times, with a dash between."""
    $out = []
    for _ in range($n):
        $out.append($t)
    return "-".join($out)
''', '"ab", 2', '"x", $k', '"y", 0'),
    _f("collatz_steps steps_to_one", '''
def $f($n):
    """Return how many steps $n needs to reach 1: half of it if even, otherwise three times it plus one."""
    taken = 0
    while $n != 1:
        if $n % 2 == 0:
            $n = $n // 2
        else:
            $n = 3 * $n + 1
        taken += 1
    return taken
''', "1", "$k", "6"),
    _f("flatten join_lists", '''
def $f(lists):
    """Return the items of all lists in one list."""
    $out = []
    for one_list in lists:
        for $x in one_list:
            $out.append($x)
    return $out
''', "[[1], [2, $k]]", "[[], [$j]]", "[]"),
    _f("transpose turn_table", '''
def $f(rows):
    """Return the columns of a table as rows."""
    $out = []
    for $i in range(len(rows[0])):
        $out.append([row[$i] for row in rows])
    return $out
''', "[[1, 2], [3, $k]]", "[[$j]]", "[[1], [2]]"),
    _f("is_sorted in_order", '''
def $f($xs):
    """Tell whether none of the $xs is smaller than the one before it."""
    for $i in range(1, len($xs)):
        if $xs[$i] < $xs[$i - 1]:
            return False
    return True
''', "[1, 2, 2]", "[$j, $k]", "[]"),
    _f("second_largest runner_up", '''
def $f($xs):
    """Return the second largest of the $xs."""
    ordered = sorted($xs, reverse=True)
    return ordered[1]
''', "[1, $k, 9]", "[$j, $j, 1]", "[5, 4]"),
    _f("capitalise_all title_words", '''
def $f($t):
    """Return the $t with a capital at the beginning of each word."""
    $out = []
    for word in $t.split():
        $out.append(word[0].upper() + word[1:])
    return " ".join($out)
''', '"red lamp"', '"one"', '"a b c"'),
    _f("caesar shift_letters", '''
def $f($t):
    """Return the $t with each small letter moved $k places on in the alphabet."""
    $out = ""
    for $c in $t:
        place = (ord($c) - ord("a") + $k) % 26
        $out += chr(place + ord("a"))
    return $out
''', '"abc"', '"xyz"', '""'),
    _f("binary_digits to_binary", '''
def $f($n):
    """Return $n in binary digits, and nothing for 0."""
    digits = ""
    while $n > 0:
        digits = str($n % 2) + digits
        $n = $n // 2
    return digits
''', "5", "$j", "0"),
)  # fmt: skip
