# Lives beside the builder with something to lose: a secret in its environment, its memory and behind its sockets. Runs the
# builder (its arguments) with both pids as build arguments, and exits as it does; prints "canary died" if a step killed it.
use strict;
use warnings;
use IO::Socket::UNIX;
use Socket;

my $secret = $ENV{CANARY_SECRET};
my $beside = $ENV{CANARY_DIRECTORY};
my $canary = fork();
if (!$canary) {
    socket(my $abstract, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
    bind($abstract, pack("S a*", AF_UNIX, "\0$beside")) or die "bind: $!";
    listen($abstract, 5);
    unlink("$beside/canary.sock");
    my $named = IO::Socket::UNIX->new(Local => "$beside/canary.sock", Listen => 5) or die "listen: $!";
    my $bits = '';
    vec($bits, fileno($abstract), 1) = 1;
    vec($bits, fileno($named), 1) = 1;
    while (1) {
        my $ready = $bits;
        select($ready, undef, undef, undef);
        for my $socket ($abstract, $named) {
            next unless vec($ready, fileno($socket), 1);
            accept(my $connection, $socket) or next;
            syswrite($connection, "$secret by socket\n");
            close($connection);
        }
    }
}
delete $ENV{CANARY_SECRET};
my $builder = fork();
if (!$builder) {
    my ($program, $command, @rest) = @ARGV;
    exec($program, $command, "--build-arg=CANARY=$canary", "--build-arg=PROGRAM=$$", @rest) or die "exec: $!";
}
waitpid($builder, 0);
my $status = $?;
print "canary died\n" if waitpid($canary, 1) != 0;
kill 'KILL', $canary;
exit(($status >> 8) || ($status & 127));
