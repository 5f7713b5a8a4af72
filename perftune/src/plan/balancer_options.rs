//! The file that has irqbalance's options: a line `OPTIONS="..."`, read by a shell or by systemd.
//!
//! Only that line is changed, and in it only the bans: quotes, comments and white space stay. A
//! comment in front of it says which bans are not the user's own, so that they can be taken out
//! again when interrupts have other numbers after a start of the machine. A line that a shell and
//! systemd may understand otherwise than this does is left alone.

/// What begins the comment that names the bans that were added.
const MARK: &str = "# Added by larder tune to the next line:";

/// The last line that gives the variable a value, in parts.
struct OptionsLine<'a> {
    /// Everything up to the value.
    front: &'a str,
    /// The quotes around it; `None` if there are none.
    quote: Option<char>,
    value: &'a str,
    /// White space and a comment behind it, with the line's end.
    back: &'a str,
}

/// The name of the variable that a line gives a value.
fn variable_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export").map_or(line, |rest| {
        let name = rest.trim_start();
        if name.len() < rest.len() { name } else { line }
    });
    let (name, _) = line.split_once('=')?;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

/// Whether a line of the file gives the variable a value.
pub(super) fn sets(content: &str, variable: &str) -> bool {
    content.lines().any(|line| variable_of(line) == Some(variable))
}

impl<'a> OptionsLine<'a> {
    /// Takes a line that gives a variable a value apart; `None` if it is written in a way that is
    /// not sure to be understood.
    fn of(line: &'a str) -> Option<Self> {
        let start = line.find('=')? + 1;
        let (front, rest) = line.split_at(start);
        let quote = rest.chars().next().filter(|first| ['"', '\''].contains(first));
        let (value, back) = match quote {
            Some(quote) => rest[1..].split_once(quote)?,
            None => rest.split_at(rest.find(['\r', '\n', '#']).unwrap_or(rest.len())),
        };
        let is_odd = |letter: char| match quote {
            Some('\'') => false,
            Some(_) => letter == '\\',
            None => "\\\"'$`;&|<>()".contains(letter),
        };
        let behind = back.trim_start();
        let is_comment = behind.is_empty() || (behind.starts_with('#') && quote.is_some());
        (is_comment && !value.contains(is_odd)).then_some(Self { front, quote, value, back })
    }

    /// The line with another value.
    fn with(&self, value: &str) -> String {
        let Self { front, back, .. } = self;
        let quote = match self.quote {
            None if value == self.value => return format!("{front}{value}{back}"),
            quote => quote.unwrap_or('"'),
        };
        format!("{front}{quote}{value}{quote}{back}")
    }
}

/// The file with these interrupts banned, and without those that were banned before by this
/// program. All else stays as it is. `None` if the line of the variable is not understood.
pub(super) fn with_bans(content: &str, variable: &str, numbers: &[u32]) -> Option<String> {
    let marked: Vec<&str> = content
        .lines()
        .filter_map(|line| line.strip_prefix(MARK))
        .flat_map(str::split_whitespace)
        .collect();
    let is_mark = |line: &&str| line.starts_with(MARK);
    let mut lines: Vec<String> =
        content.split_inclusive('\n').filter(|line| !is_mark(line)).map(str::to_owned).collect();
    let place = lines.iter().rposition(|line| variable_of(line) == Some(variable));
    let is_continued = place.is_some_and(|place| {
        place.checked_sub(1).is_some_and(|before| lines[before].trim_end().ends_with('\\'))
    });
    if is_continued {
        return None;
    }
    let empty = || format!("{variable}=\"\"\n");
    let old = place.map_or_else(empty, |place| lines[place].clone());
    let line = OptionsLine::of(&old)?;
    let own: Vec<&str> = line.value.split(' ').filter(|word| !marked.contains(word)).collect();
    let bans = numbers.iter().map(|number| format!("--banirq={number}"));
    let added: Vec<String> = bans.filter(|ban| !own.contains(&ban.as_str())).collect();
    let mut value = own.join(" ");
    for ban in &added {
        let gap = if value.is_empty() || value.ends_with(' ') { "" } else { " " };
        value.push_str(gap);
        value.push_str(ban);
    }
    let changed = line.with(&value);
    let mark = format!("{MARK} {}\n", added.join(" "));
    let mark = if added.is_empty() { "" } else { &mark };
    match place {
        Some(place) => lines[place] = format!("{mark}{changed}"),
        None if added.is_empty() => {}
        None => {
            let is_cut = lines.last().is_some_and(|line| !line.ends_with('\n'));
            lines.push(format!("{}{mark}{changed}", if is_cut { "\n" } else { "" }));
        }
    }
    Some(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "OPTIONS";

    /// What is written, and that it is so again when it is written again.
    fn banned(content: &str, numbers: &[u32]) -> String {
        let new = with_bans(content, OPTIONS, numbers).expect("it is understood");
        assert_eq!(
            with_bans(&new, OPTIONS, numbers).as_ref(),
            Some(&new),
            "nothing is added twice"
        );
        new
    }

    fn marked(bans: &str, line: &str) -> String {
        format!("{MARK} {bans}\n{line}")
    }

    #[test]
    fn bans_are_added_and_all_else_stays() {
        let one = "--banirq=1";
        for (content, expected) in [
            ("", marked(one, "OPTIONS=\"--banirq=1\"\n")),
            (
                "# OPTIONS=\"x\"",
                format!("# OPTIONS=\"x\"\n{}", marked(one, "OPTIONS=\"--banirq=1\"\n")),
            ),
            ("OPTIONS=\n", marked(one, "OPTIONS=\"--banirq=1\"\n")),
            ("OPTIONS=--debug", marked(one, "OPTIONS=\"--debug --banirq=1\"")),
            ("OPTIONS='a  b'\n", marked(one, "OPTIONS='a  b --banirq=1'\n")),
            ("OPTIONS='a \\b\"' # why\n", marked(one, "OPTIONS='a \\b\" --banirq=1' # why\n")),
            ("OPTIONS=\"a 'b'\"\r\n", marked(one, "OPTIONS=\"a 'b' --banirq=1\"\r\n")),
            (
                "  export OPTIONS=\"$OPTIONS x\"\n#\n",
                marked(one, "  export OPTIONS=\"$OPTIONS x --banirq=1\"\n#\n"),
            ),
            (
                "OPTIONS=a\nOPTIONS=b\nX=1\n",
                format!("OPTIONS=a\n{}X=1\n", marked(one, "OPTIONS=\"b --banirq=1\"\n")),
            ),
        ] {
            assert_eq!(banned(content, &[1]), expected, "{content:?}");
        }
        let own = "OPTIONS=--banirq=1\n";
        assert_eq!(banned(own, &[1]), own, "the user has banned it");
    }

    #[test]
    fn after_a_start_of_the_machine_other_interrupts_are_banned() {
        let own = "# Options\nOPTIONS=\"--powerthresh=3 --banirq=7\"\n";
        let first = banned(own, &[7, 24, 25]);
        let line = "OPTIONS=\"--powerthresh=3 --banirq=7 --banirq=24 --banirq=25\"\n";
        assert_eq!(first, format!("# Options\n{}", marked("--banirq=24 --banirq=25", line)));
        let second = banned(&first, &[30]);
        let line = "OPTIONS=\"--powerthresh=3 --banirq=7 --banirq=30\"\n";
        assert_eq!(second, format!("# Options\n{}", marked("--banirq=30", line)));
        assert_eq!(banned(&second, &[]), own);
        let edited = second.replace("--powerthresh=3", "--debug");
        assert_eq!(banned(&edited, &[]), own.replace("--powerthresh=3", "--debug"));
    }

    #[test]
    fn a_line_that_may_be_understood_otherwise_is_left_alone() {
        for content in [
            "OPTIONS=\"a \\\n b\"\n",
            "OPTIONS=\"a\n b\"\n",
            "OPTIONS=\"a \\\"b\\\" c\"\n",
            "OPTIONS=\"a\"\"b\"\n",
            "OPTIONS=\"a\" b\n",
            "OPTIONS='a\n",
            "OPTIONS=a # why\n",
            "OPTIONS=$X\n",
            "OPTIONS=a;b\n",
            "X=1 \\\nOPTIONS=a\n",
        ] {
            assert_eq!(with_bans(content, OPTIONS, &[1]), None, "{content:?}");
        }
    }

    #[test]
    fn variables_are_found() {
        for (line, name) in [
            ("OPTIONS=x", Some("OPTIONS")),
            (" export  OPTIONS=", Some("OPTIONS")),
            ("exported=1", Some("exported")),
            ("# OPTIONS=", None),
            ("OPTIONS =x", None),
            ("=x", None),
        ] {
            assert_eq!(variable_of(line), name, "{line:?}");
        }
    }
}
