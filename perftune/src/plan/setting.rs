//! One thing that is to be set.

use crate::cpu_mask::CpuMask;

/// What a setting is about, in the order in which settings are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingArea {
    /// Who may move interrupts.
    Balancer,
    /// Which CPUs take which interrupts.
    Interrupts,
    /// Network cards.
    Network,
    /// Disks.
    Disks,
    /// The machine as a whole.
    System,
    /// Limits of processes.
    Limits,
    /// What the node is told.
    Node,
}

impl SettingArea {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balancer => "irqbalance",
            Self::Interrupts => "interrupts",
            Self::Network => "network",
            Self::Disks => "disks",
            Self::System => "system",
            Self::Limits => "limits",
            Self::Node => "node",
        }
    }
}

/// How a setting's text is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// A word; where the file lists several, the one in brackets is in force.
    Word,
    /// A number, which may also be larger.
    AtLeast,
    /// CPUs as hexadecimal digits.
    Hexadecimal,
    /// CPUs as a list.
    CpuList,
    /// The whole content of an ordinary file.
    File,
}

/// What is to be set, and what is so now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuneSetting {
    /// What it is about.
    pub area: SettingArea,
    /// The file.
    pub path: String,
    /// What the file says now; `None` if it is not there.
    pub current: Option<String>,
    /// How it is to be understood.
    pub kind: SettingKind,
    /// What is to be written.
    pub value: String,
    /// Why.
    pub reason: String,
    /// Whether the kernel may keep this setting to itself.
    pub may_be_refused: bool,
    /// A command that makes it effective.
    pub then: Option<String>,
}

impl TuneSetting {
    /// Whether something else is in force now.
    pub fn differs(&self) -> bool {
        let Some(current) = &self.current else { return true };
        let same_mask = |read: fn(&str) -> Result<CpuMask, String>| {
            read(current.trim()).is_ok_and(|mask| Ok(mask) == read(&self.value))
        };
        match self.kind {
            SettingKind::Word => written_form(current) != self.value,
            SettingKind::AtLeast => {
                let number = |text: &str| text.trim().parse::<u64>().ok();
                number(current) < number(&self.value)
            }
            SettingKind::Hexadecimal => !same_mask(CpuMask::from_hexadecimal),
            SettingKind::CpuList => !same_mask(CpuMask::from_list),
            SettingKind::File => *current != self.value,
        }
    }

    /// Whether something else is in force, and that is not the kernel's own choice.
    pub fn is_wrong(&self) -> bool {
        self.differs() && !self.may_be_refused
    }

    /// What the file says once it is set.
    pub fn shown(&self) -> String {
        let current = self.current.as_deref().unwrap_or_default();
        let end = if current.ends_with('\n') { "\n" } else { "" };
        match self.kind {
            SettingKind::File => self.value.clone(),
            SettingKind::Word if current.contains('[') => {
                let words = current.split_whitespace().map(|word| {
                    let word = word.trim_matches(['[', ']']);
                    if word == self.value { format!("[{word}]") } else { word.to_owned() }
                });
                format!("{}{end}", words.collect::<Vec<_>>().join(" "))
            }
            SettingKind::Hexadecimal => {
                let digits = current.chars().filter(char::is_ascii_hexdigit).count();
                let mask = CpuMask::from_hexadecimal(&self.value).unwrap_or_default();
                format!("{}{end}", mask.hexadecimal(digits))
            }
            SettingKind::Word | SettingKind::AtLeast | SettingKind::CpuList => {
                format!("{}{end}", self.value)
            }
        }
    }

    /// What is in force now, as people read it.
    pub fn current_word(&self) -> &str {
        match (&self.current, self.kind) {
            (None, _) => "(no file)",
            (Some(_), SettingKind::File) => "(another content)",
            (Some(current), _) => written_form(current),
        }
    }

    /// What is to be in force, as people read it.
    pub fn wanted_word(&self) -> &str {
        if self.kind == SettingKind::File { "(as --dry-run shows)" } else { &self.value }
    }
}

/// What is to be written to a setting of the kernel so that it says `content` again: the word in
/// brackets, if there is one.
pub fn written_form(content: &str) -> &str {
    let in_brackets = content
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[').and_then(|word| word.strip_suffix(']')));
    in_brackets.unwrap_or(content.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(kind: SettingKind, current: &str, value: &str) -> TuneSetting {
        TuneSetting {
            area: SettingArea::System,
            path: "/sys/x".to_owned(),
            current: Some(current.to_owned()),
            kind,
            value: value.to_owned(),
            reason: String::new(),
            may_be_refused: false,
            then: None,
        }
    }

    #[test]
    fn values_are_compared_as_what_they_are() {
        use SettingKind::{AtLeast, CpuList, File, Hexadecimal, Word};
        for (kind, current, value, differs, shown) in [
            (Word, "[mq-deadline] none\n", "none", true, "mq-deadline [none]\n"),
            (Word, "mq-deadline [none] \n", "none", false, "mq-deadline [none]\n"),
            (Word, "0\n", "2", true, "2\n"),
            (AtLeast, "65536\n", "1048576", true, "1048576\n"),
            (AtLeast, "2000000\n", "1048576", false, "1048576\n"),
            (Hexadecimal, "00,00000000\n", "ff", true, "00,000000ff\n"),
            (Hexadecimal, "00,000000ff\n", "ff", false, "00,000000ff\n"),
            (CpuList, "0-3\n", "0,1,2,3", false, "0,1,2,3\n"),
            (CpuList, "0-3\n", "0", true, "0\n"),
            (CpuList, "nonsense\n", "0", true, "0\n"),
            (File, "a\n", "b\n", true, "b\n"),
        ] {
            let setting = setting(kind, current, value);
            assert_eq!(setting.differs(), differs, "{setting:?}");
            assert_eq!(setting.shown(), shown, "{setting:?}");
        }
        let missing = TuneSetting { current: None, ..setting(File, "", "b\n") };
        assert!(missing.differs());
    }
}
