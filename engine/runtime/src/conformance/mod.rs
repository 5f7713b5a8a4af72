//! What every runtime of a core has to do, as tests that run over each of them.

mod connections;
mod files;
mod tasks;

use crate::core_thread::CoreOptions;

/// Makes a core.
type Make<C> = fn(CoreOptions) -> C;

/// The tests, for the runtime whose cores `$make` makes.
macro_rules! conformance {
    ($runtime:ident, $make:expr, { $($group:ident: $($test:ident),+;)+ }) => {
        mod $runtime {
            $($(
                #[test]
                fn $test() {
                    super::$group::$test($make);
                }
            )+)+
        }
    };
}

macro_rules! all_conformance {
    ($runtime:ident, $make:expr) => {
        conformance!($runtime, $make, {
            connections:
                several_clients_are_echoed,
                one_byte_segments,
                a_large_value_in_and_out,
                a_half_closed_client_gets_its_answers,
                the_service_closes_after_output_and_refuses_with_a_message,
                a_reset_connection_is_closed_once,
                a_client_that_never_reads_holds_nobody_up,
                a_paused_connection_receives_nothing_until_it_is_resumed,
                a_thousand_connections;
            files:
                files_are_written_read_renamed_listed_and_removed,
                a_file_ends_where_it_ends,
                many_requests_at_once,
                requests_are_dropped_in_flight,
                a_file_system_in_memory_works_too;
            tasks:
                timers_wake_in_order_and_not_early,
                another_thread_wakes_a_sleeping_core,
                a_task_is_woken_by_another_thread,
                a_panicking_task_ends_the_loop_with_its_panic;
        });
    };
}

all_conformance!(ring, |options| crate::core_thread::Core::new(options)
    .expect("a core on the ring"));
#[cfg(feature = "runtime-glommio")]
all_conformance!(glommio, |options| {
    crate::glommio_runtime::GlommioCore::new(options).expect("a core on glommio")
});
