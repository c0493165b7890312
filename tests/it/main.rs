//! Promises kept end to end. One file per promise; its name is the promise.

mod a_store_is_backed_up_restored_and_moved;
mod agent_and_collector_trust_each_other;
mod bad_settings_are_answered_whole;
mod collector_away_leaves_no_hole;
mod killed_at_random_nothing_is_lost_or_doubled;
mod many_collectors_lose_nothing_whoever_is_killed;
mod oncall_receiver_down_gets_it_later;
mod outage_reaches_figure_page_and_oncall;
mod silent_agent_and_overdue_patch_alert;
mod strangers_are_refused;
