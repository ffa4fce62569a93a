//! The scripts. Each is a file of its own that says its keys, its arguments and its effect.

use std::sync::LazyLock;

use crate::redis_server::Script;

pub(super) struct Scripts {
    pub(super) register: Script,
    pub(super) state: Script,
    pub(super) note: Script,
    pub(super) complete: Script,
    pub(super) attend: Script,
    pub(super) leave: Script,
    pub(super) checkpoint: Script,
    pub(super) plan: Script,
    pub(super) claim: Script,
    pub(super) record: Script,
    pub(super) due: Script,
    pub(super) expire: Script,
    pub(super) decide: Script,
    pub(super) hold_back: Script,
    pub(super) close: Script,
    pub(super) hold: Script,
    pub(super) probe: Script,
    pub(super) deliver: Script,
    pub(super) suppress: Script,
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let script = |text| Script::new(&[include_str!("batch.lua"), text]);
    Scripts {
        register: script(include_str!("register.lua")),
        state: script(include_str!("state.lua")),
        note: script(include_str!("note.lua")),
        complete: script(include_str!("complete.lua")),
        attend: script(include_str!("attend.lua")),
        leave: script(include_str!("leave.lua")),
        checkpoint: script(include_str!("checkpoint.lua")),
        plan: script(include_str!("plan.lua")),
        claim: script(include_str!("claim.lua")),
        record: script(include_str!("record.lua")),
        due: script(include_str!("due.lua")),
        expire: script(include_str!("expire.lua")),
        decide: script(include_str!("decide.lua")),
        hold_back: script(include_str!("hold_back.lua")),
        close: script(include_str!("close.lua")),
        hold: script(include_str!("hold.lua")),
        probe: script(include_str!("probe.lua")),
        deliver: script(include_str!("deliver.lua")),
        suppress: script(include_str!("suppress.lua")),
    }
});
