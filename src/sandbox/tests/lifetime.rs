//! Entering, and how commands end: by themselves, by the builder, or with it.

use super::*;

subjects![
    entering_twice_is_once,
    a_process_with_threads_cannot_enter,
    the_builder_protects_itself_and_still_runs_commands,
    what_the_command_leaves_running_is_killed,
    cancelling_ends_everything_at_once,
    commands_of_several_threads_do_not_disturb_each_other,
    a_panic_in_the_output_ends_the_command,
    killing_the_builder_ends_the_command,
    killing_init_ends_the_command_and_is_reported,
    victim,
    bereaved,
    signals_raise_the_flag_and_the_second_interrupt_ends,
    time_of_an_empty_command,
    time_of_an_empty_command_without_network,
];

#[test]
fn entering_twice_is_once() {
    as_subject!(entering_twice_is_once);
    assert!(!entered());
    let rung = sandbox();
    assert!(entered());
    assert_eq!(enter_any().unwrap(), rung);
}

#[test]
fn a_process_with_threads_cannot_enter() {
    as_subject!(a_process_with_threads_cannot_enter);
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    });
    assert!(matches!(
        enter_any(),
        Err(SandboxError::Threads { count: 2 })
    ));
    assert!(matches!(
        run(Root::new().spec(&["true"]), &mut |_, _| (), &Cancel::new()),
        Err(RunError::NotEntered)
    ));
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

#[test]
fn the_builder_protects_itself_and_still_runs_commands() {
    as_subject!(the_builder_protects_itself_and_still_runs_commands);
    sandbox();
    protect_self();
    check("echo x", "x");
    let spawned = std::thread::spawn(|| check("echo y", "y"));
    spawned.join().unwrap();
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() > 2);
}

#[test]
fn what_the_command_leaves_running_is_killed() {
    as_subject!(what_the_command_leaves_running_is_killed);
    sandbox();
    let root = Root::new();
    let start = Instant::now();
    output(root.shell("sleep 4711 & sleep 4711 & (sleep 4711 &) ; exit 0"));
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_eq!(processes("sleep 4711"), 0);
}

#[test]
fn cancelling_ends_everything_at_once() {
    as_subject!(cancelling_ends_everything_at_once);
    sandbox();
    let root = Root::new();
    let cancel = Cancel::new();
    let mut heard = false;
    let start = Instant::now();
    let result = run(
        root.shell("sleep 4712 & echo started; sleep 4712"),
        &mut |_, _| {
            heard = true;
            cancel.cancel(CancelReason::Timeout);
        },
        &cancel,
    );
    assert!(matches!(result, Err(RunError::Cancelled)), "{result:?}");
    assert!(heard && start.elapsed() < Duration::from_secs(60));
    assert_eq!(processes("sleep 4712"), 0);
    assert!(matches!(
        run(root.spec(&["true"]), &mut |_, _| (), &cancel),
        Err(RunError::Cancelled)
    ));
}

#[test]
fn commands_of_several_threads_do_not_disturb_each_other() {
    as_subject!(commands_of_several_threads_do_not_disturb_each_other);
    sandbox();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            std::thread::spawn(move || {
                let root = Root::new();
                for turn in 0..5 {
                    let text = format!("{thread}-{turn}");
                    assert_eq!(
                        output(root.shell(&format!("echo {text} > /yard/f; cat /yard/f")))
                            .trim_end(),
                        text
                    );
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_panic_in_the_output_ends_the_command() {
    as_subject!(a_panic_in_the_output_ends_the_command);
    sandbox();
    let root = Root::new();
    let spec = root.shell("echo x; sleep 4713");
    std::panic::set_hook(Box::new(|_| ()));
    let result =
        std::panic::catch_unwind(|| run(spec, &mut |_, _| panic!("display broke"), &Cancel::new()));
    assert!(result.is_err());
    assert_eq!(processes("sleep 4713"), 0);
}

#[test]
fn killing_the_builder_ends_the_command() {
    as_subject!(killing_the_builder_ends_the_command);
    kill_and_count("victim", "4714", |builder| vec![builder]);
}

#[test]
fn killing_init_ends_the_command_and_is_reported() {
    as_subject!(killing_init_ends_the_command_and_is_reported);
    kill_and_count("bereaved", "4715", children);
}

fn victim() {
    run_and_print("4714");
}

fn bereaved() {
    run_and_print("4715");
}

#[test]
fn signals_raise_the_flag_and_the_second_interrupt_ends() {
    as_subject!(signals_raise_the_flag_and_the_second_interrupt_ends);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the default handler. Whoever runs the tests behind a shell's `&` ignores one of them, and that would stay so.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let cancel = Cancel::new();
    raise_on_signals(&cancel).unwrap();
    assert!(matches!(
        raise_on_signals(&Cancel::new()),
        Err(SignalError::Taken)
    ));
    let status_after = |signals: &[libc::c_int]| {
        // SAFETY: the subject has one thread, so the child is whole.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            for signal in signals {
                // SAFETY: all of them have a handler.
                unsafe { libc::raise(*signal) };
            }
            let status = match cancel.reason() {
                Some(CancelReason::Interrupted) => 1,
                Some(CancelReason::Terminated) => 2,
                Some(CancelReason::Failed) => 3,
                _ => 0,
            };
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: waits for the own child, with a live integer.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        libc::WEXITSTATUS(status)
    };
    let (int, term, hup) = (libc::SIGINT, libc::SIGTERM, libc::SIGHUP);
    for (signals, expected) in [
        (&[][..], 0),
        (&[int], 1),
        (&[term], 2),
        (&[hup], 2),
        (&[int, term], 1),
        (&[term, int], 2),
        (&[int, int], 130),
        (&[int, term, int], 130),
    ] {
        assert_eq!(status_after(signals), expected, "{signals:?}");
    }
    // Whatever raised the flag before.
    cancel.cancel(CancelReason::Failed);
    assert_eq!(status_after(&[int]), 3);
    assert_eq!(status_after(&[int, int]), 130);
}

#[test]
#[ignore = "a measurement: BUILDER_SANDBOX_SUBJECT=time_of_an_empty_command BUILDER_SANDBOX_RUNS=200 and the test program"]
fn time_of_an_empty_command() {
    as_subject!(time_of_an_empty_command);
    measure(NetworkMode::Default);
}

#[test]
#[ignore = "a measurement, as the one before it"]
fn time_of_an_empty_command_without_network() {
    as_subject!(time_of_an_empty_command_without_network);
    measure(NetworkMode::None);
}

fn measure(network: NetworkMode) {
    let rung = sandbox();
    let root = Root::new();
    let runs: u32 = std::env::var("BUILDER_SANDBOX_RUNS").map_or(20, |runs| runs.parse().unwrap());
    let mut times: Vec<_> = (0..runs)
        .map(|_| {
            let mut spec = root.spec(&["true"]);
            spec.network = network;
            let start = Instant::now();
            assert_eq!(outcome(spec).unwrap().0, Exit::Code(0));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    eprintln!(
        "{rung}, {network:?}: mean {:.3} ms, median {:.3}, 95 % {:.3}",
        times.iter().sum::<f64>() / f64::from(runs),
        times[times.len() / 2],
        times[times.len() * 95 / 100],
    );
}

/// A builder that runs a long command and says when it has started and how it ended.
fn run_and_print(seconds: &str) {
    sandbox();
    let root = Root::new();
    let result = run(
        root.shell(&format!("sleep {seconds} & echo started; sleep {seconds}")),
        &mut |_, bytes| std::io::stdout().write_all(bytes).unwrap(),
        &Cancel::new(),
    );
    println!("{result:?}");
}

/// Starts a builder, kills what `choose` picks, and waits until nothing of the command is left.
pub(super) fn kill_and_count(subject: &str, seconds: &str, choose: fn(u32) -> Vec<u32>) {
    // A killed builder does not clean up.
    let scratch = TempDir::new().unwrap();
    // It may have to become somebody else first.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut builder = Command::new(std::env::current_exe().unwrap())
        .env(SUBJECT, subject)
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = [0; 8];
    let mut stdout = builder.stdout.take().unwrap();
    if stdout.read_exact(&mut text).is_err() {
        skip("the builder did not start");
    }
    let sleep = format!("sleep {seconds}");
    wait_until("two of them", || processes(&sleep) >= 2);
    for pid in choose(builder.id()) {
        // SAFETY: a process that this test started.
        assert_eq!(unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) }, 0);
    }
    wait_until("none of them", || processes(&sleep) == 0);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    builder.wait().unwrap();
    if matches!(subject, "bereaved" | "supervised_victim") {
        assert!(rest.contains("Lost"), "{rest}");
    }
}

pub(super) fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    listed
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}
