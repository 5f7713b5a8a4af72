//! What differs from a plan.

use super::table::aligned;
use crate::plan::{TunePlan, TuneSetting};

/// One table of what differs, with the reason of each setting.
pub fn differences(plan: &TunePlan) -> String {
    let (wrong, kept): (Vec<&TuneSetting>, Vec<&TuneSetting>) =
        plan.differences().partition(|setting| setting.is_wrong());
    let mut text = String::new();
    let total = plan.settings.len();
    if wrong.is_empty() {
        text.push_str(&format!("all {total} settings are as the plan has them\n"));
    } else {
        let heads = ["area", "setting", "is", "should be", "because"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(wrong.iter().map(|setting| row(setting)));
        text.push_str(&aligned(&rows));
        text.push_str(&format!("{} of {total} settings differ from the plan\n", wrong.len()));
    }
    for setting in kept {
        let (now, wanted) = (setting.current_word(), setting.wanted_word());
        text.push_str(&format!(
            "{} is {now} and not {wanted}; some kernels keep it so, which is not counted\n",
            setting.path
        ));
    }
    text
}

fn row(setting: &TuneSetting) -> Vec<String> {
    let least = if setting.kind == crate::plan::SettingKind::AtLeast { ">= " } else { "" };
    vec![
        setting.area.name().to_owned(),
        setting.path.clone(),
        setting.current_word().to_owned(),
        format!("{least}{}", setting.wanted_word()),
        setting.reason.clone(),
    ]
}
