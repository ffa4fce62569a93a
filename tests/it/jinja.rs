//! Compares expressions over the texts of a CSV file with Jinja2 for Python, which gets the same values as numbers.

use std::fmt::Write as _;
use std::process::Command;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::first_seed_of_commit;
use crate::tools;

const ROWS: usize = 200;

/// Expressions over the columns `a` and `b`, which are numbers, `day`, which is a date, and `name`, a text.
const EXPRESSIONS: &[&str] = &[
    "{% if a > 1000 %}y{% else %}n{% endif %}",
    "{% if 1000.5 <= a %}y{% else %}n{% endif %}",
    "{% if a < b %}y{% elif a == b %}same{% else %}n{% endif %}",
    "{% if a >= b and not b > 50 %}y{% else %}n{% endif %}",
    "{{ 'y' if a == 1 else 'n' }}",
    "{{ 'y' if a != -3 else 'n' }}",
    "{{ 'y' if 2 == b else 'n' }}",
    "{{ 'y' if a in [1, 2, -3] else 'n' }}",
    "{{ 'y' if a not in [1, 2, -3] else 'n' }}",
    "{{ 'y' if a in [b, 1] or b in (2, 3, a) else 'n' }}",
    "{{ 'y' if (a) in [10 + 10] or a in range(1, 5) or a in {3: 1} else 'n' }}",
    "{{ 'y' if a - b > 0 else 'n' }}",
    "{{ 'y' if a / 2 > b else 'n' }}",
    "{{ 'y' if a + 1 > b else 'n' }}",
    "{{ 'y' if a + b > 5 and (a + b) > 3 else 'n' }}",
    "{{ 'y' if -a < b else 'n' }}",
    "{{ 'y' if a == b - 1 or a == b % 5 or a == (b - 1) else 'n' }}",
    "{{ 'y' if a - b == 3 or -a == b or a - 1 != b else 'n' }}",
    "{{ 'y' if 0 < a < 100 < b else 'n' }}",
    "{{ 'y' if a == b == 1 else 'n' }}",
    "{{ 'y' if a | abs > 10 else 'n' }}",
    "{{ 'y' if a | float + b | float > 20 else 'n' }}",
    "{{ 'y' if (a | float + b | float) > 20 else 'n' }}",
    "{{ 'y' if (a > 3) == (b > 3) else 'n' }}",
    "{{ 'y' if (a or 0) > 5 or (a if a else 0) < -5 else 'n' }}",
    "{{ 'y' if (a | default(0)) > 5 else 'n' }}",
    "{{ 'y' if [a, b] | max > 30 else 'n' }}",
    "{{ 'y' if [a, b] | sum == 10 else 'n' }}",
    "{{ 'y' if ([a, b] | sort | first) == a else 'n' }}",
    "{{ 'y' if a is gt(100) else 'n' }}",
    "{{ 'y' if a is eq(1) else 'n' }}",
    "{{ 'y' if a is le(b) else 'n' }}",
    "{{ 'y' if a is in([1, 2]) else 'n' }}",
    "{{ [a, b] | select('ge', 10) | list | length }}",
    "{% for x in [a, b] %}{{ '+' if x > 10 else '-' }}{{ 'i' if loop.index == a }}{% endfor %}",
    "{% for x in [a, b] if x > 10 %}+{% else %}none{% endfor %}",
    "{{ a | int // 7 }} {{ a | int % 7 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 7 / 2 }}",
    "{{ 'y' if day > '2026-06-15' else 'n' }}",
    "{{ name[:1] }}{{ name[-2:] }}{{ name[::-1] }}{{ name[1:3] }}{{ name[5:0:-2] }}{{ name[:-1] }}{{ name[9:] }}",
    "{{ name == 'Asha' }} {{ 's' in name }} {{ name > 'B' }} {{ name ~ 1 }} {{ name + '!' }}",
    "{% raw %}{{ a > 1 }}{% endraw %}{# {{ a > #}{{ '}}' ~ \"{%\" }}{{ {'k': {'j': name}}.k.j }}",
    "{{ ['x', 'y'] | map('upper') | join('-') }} {{ [3, 1] | sort(reverse=true) | join(',') }} {{ 2.5 | round(method='floor') }} {{ 2.57 | round(1, 'floor') }}",
    "{%- if a > 7 -%}y{%- endif -%}.",
];

#[test]
fn comparisons_agree_with_jinja2_on_numbers() {
    let seed = first_seed_of_commit();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut number = || match random.random_range(0..4) {
        0 => random.random_range(-3..4).to_string(),
        1 => random.random_range(-2000..2000).to_string(),
        2 => format!("{}.{:02}", random.random_range(0..2000), random.random_range(0..100)),
        _ => random.random_range(0..60).to_string(),
    };
    let mut file = String::from("phone,a,b,day,name\n");
    for row in 0..ROWS {
        let (a, b, day) = (number(), number(), 1 + row % 30);
        let name = ["Asha", "Ravi Kumar", "उमा", "O"][row % 4];
        writeln!(file, "+9198765{row:05},{a},{b},2026-06-{day:02},{name}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("people.csv"), &file).unwrap();
    let body = EXPRESSIONS.join(" ");
    let job = json!({
        "version": 1, "id": "jinja", "name": "jinja", "account": "main", "from": "+912248931479",
        "audience": { "csv": { "path": "people.csv" } },
        "message": { "type": "text", "text": { "body": body } },
    });
    std::fs::write(folder.path().join("job.json"), job.to_string()).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_flowcast"));
    check.args(["check", "job.json", "--json", "--rows", &ROWS.to_string()]).current_dir(folder.path());
    let checked: Value = serde_json::from_str(&tools::run(&mut check)).unwrap();
    let script = "import csv, jinja2, json, sys\n\
        template = jinja2.Environment(keep_trailing_newline=True).from_string(sys.argv[1])\n\
        number = lambda text: float(text) if '.' in text else int(text)\n\
        rows = list(csv.DictReader(open('people.csv')))\n\
        print(json.dumps([template.render(a=number(row['a']), b=number(row['b']), day=row['day'], name=row['name']) for row in rows]))";
    let python = tools::python("jinja2", "jinja2==3.1.6").join("bin/python");
    let expected = tools::run(Command::new(python).args(["-c", script, &body]).current_dir(folder.path()));
    let expected: Vec<String> = serde_json::from_str(&expected).unwrap();
    assert_eq!(expected.len(), ROWS);
    assert_eq!(checked["problems"], json!([]), "seed {seed}");
    let shown = checked["messages"].as_array().unwrap();
    for (nth, expected) in expected.iter().enumerate() {
        let row = file.lines().nth(nth + 1).unwrap();
        assert_eq!(shown[nth]["content"]["text"]["body"], json!(expected), "seed {seed}: {row}");
    }
}
