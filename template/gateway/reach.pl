#!/usr/bin/perl
# Says which addresses answer: whoever accepts a TCP connection or refuses it was reached, and so was the way back.
#
# usage: reach.pl ADDRESS:PORT[,PORT...]...    prints each of these addresses that answers, with the port and how
#
# Each address is tried at its first port; those that stay silent at the next one.
use strict;
use warnings;
use Errno qw(ECONNREFUSED EINPROGRESS);
use Socket qw(:DEFAULT SOCK_NONBLOCK);

my $seconds = 1.2;      # more than a kernel waits before it tries again
my $at_once = 200;      # sockets
my (%ports, @addresses);
for (@ARGV) {
    my ($address, $ports) = split /:/;
    push @addresses, $address;
    $ports{$address} = [split /,/, $ports];
}
$| = 1;
while (@addresses) {
    my @silent;
    while (my @part = splice @addresses, 0, $at_once) { push @silent, try(@part) }
    @addresses = grep { shift @{ $ports{$_} }; @{ $ports{$_} } } @silent;
}

# Prints those of the addresses that answer, and returns the others.
sub try {
    my (%sockets, %answers);
    for my $address (@_) {
        socket my $socket, PF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0 or die "socket: $!\n";
        my $begun = connect $socket, sockaddr_in($ports{$address}[0], inet_aton($address));
        if ($begun || $! == EINPROGRESS) { $sockets{$address} = $socket }
        elsif ($! == ECONNREFUSED) { $answers{$address} = 'refused' }
    }
    my $left = $seconds;
    while (%sockets && $left > 0) {
        my $wanted = '';
        vec($wanted, fileno $_, 1) = 1 for values %sockets;
        (my $count, $left) = select undef, my $ready = $wanted, undef, $left;
        for my $address (grep { vec $ready, fileno $sockets{$_}, 1 } keys %sockets) {
            my $error = unpack 'i', getsockopt $sockets{$address}, SOL_SOCKET, SO_ERROR;
            $answers{$address} = $error ? 'refused' : 'accepted' if !$error || $error == ECONNREFUSED;
            delete $sockets{$address};
        }
    }
    print "$_ $ports{$_}[0] $answers{$_}\n" for keys %answers;
    return grep { !$answers{$_} } @_;
}
