#!/usr/bin/perl
# As `sysctl net.ipv4.conf.DEVICE.forwarding=VALUE`, but /proc/sys is read-only in a container, and netlink needs
# NET_ADMIN alone: RTM_SETLINK (19) for the device, with IFLA_AF_SPEC (26), AF_INET (2), IFLA_INET_CONF (1) and forwarding
# (1) = VALUE, each inside the one before (rtnetlink(7); linux/if_link.h); 16, 3, 0: AF_NETLINK, SOCK_RAW, NETLINK_ROUTE.
#
# usage: forward.pl INDEX_OF_DEVICE 0|1
use strict;
use warnings;

my ($device, $value) = @ARGV;
my $message = pack("L S S L L  C x S l L L", 52, 19, 1, 0, 0,  0, 0, $device, 0, 0);
$message .= pack("S S S S S S S S L", 20, 26, 16, 2, 12, 1, 8, 1, $value);
socket(KERNEL, 16, 3, 0) and send(KERNEL, $message, 0) or die "netlink: $!\n";
