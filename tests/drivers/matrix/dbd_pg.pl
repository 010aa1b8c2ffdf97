# DBD::Pg in the matrix: README.md beside this says what each worker does. Each is a process of its own.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async);
use JSON::PP;
use Time::HiRes qw(sleep time);

my ($NAME, $LEDGER) = @ENV{qw(MATRIX_NAME MATRIX_LEDGER)};
my $INSERT = "insert into matrix_entry (driver, worker, n) values (?, ?, ?)";
my $COUNT = "select count(*) from matrix_entry where driver = ? and worker = ? and n = ?";
my ($COPY_ROWS, $WARM_UP, $PACE_S, $CANCEL_AFTER_S, $NOTIFY_PATIENCE_S) = (40, 20, 0.02, 0.1, 2);

sub expect {
    my ($what, $got, $wanted) = @_;
    die "$what is " . ($got // 'undef') . " instead of $wanted\n" unless defined $got && $got eq $wanted;
}

sub connect_to {
    my $source = "dbi:Pg:host=$ENV{MATRIX_HOST};port=$ENV{MATRIX_PORT};dbname=$ENV{MATRIX_DATABASE};"
        . ($ENV{MATRIX_CA} ? "sslmode=verify-full;channel_binding=require;sslrootcert=$ENV{MATRIX_CA}" : "sslmode=disable");
    my $dbh = DBI->connect($source, $ENV{MATRIX_USER}, $ENV{MATRIX_PASSWORD}, {RaiseError => 1, PrintError => 0, AutoCommit => 1});
    $dbh->do($_) for split /;/, $ENV{MATRIX_SET_UP};
    return $dbh;
}

# True for each round; the last one begins when the run is over.
sub next_round {
    my ($worker) = @_;
    return 0 if $worker->{last};
    sleep $PACE_S if $worker->{rounds}++;
    $worker->{last} = -e $ENV{MATRIX_STOP};
    return 1;
}

sub acknowledge {
    my ($worker, @numbers) = @_;
    push @{$worker->{acknowledged}}, @numbers;
}

sub check_state {
    my ($worker, $dbh) = @_;
    my ($state, $server, $statements, $mood) = $dbh->selectrow_array($ENV{MATRIX_STATE});
    expect("the session's state", $state, $ENV{MATRIX_WANTED});
    expect("an enum", $mood, "calm");
    $worker->{switches}++ if defined $worker->{server} && $worker->{server} ne $server;
    $worker->{server} = $server;
    if ($worker->{rounds} > $WARM_UP) {
        expect("the list of prepared statements", $statements, $worker->{statements}) if defined $worker->{statements};
        $worker->{statements} = $statements;
    }
}

sub transactions {
    my ($worker) = @_;
    my $dbh = connect_to();
    my ($put, $see) = ($dbh->prepare($INSERT), $dbh->prepare($COUNT));
    my $count = sub { $see->execute($NAME, $worker->{name}, $_[0]); return ($see->fetchrow_array)[0] };
    while (next_round($worker)) {
        my $n = $worker->{rounds};
        $dbh->begin_work;
        $put->execute($NAME, $worker->{name}, $n);
        expect("the count in the transaction", $count->($n), 1);
        $dbh->commit;
        acknowledge($worker, $n);
        $dbh->begin_work;
        $put->execute($NAME, $worker->{name}, -$n);
        $dbh->pg_savepoint("here");
        eval { $dbh->do("select 1 / 0") };
        expect("the error of a division", $dbh->state, "22012");
        $dbh->pg_rollback_to("here");
        $dbh->rollback;
        expect("what was rolled back", $count->(-$n), 0);
        expect("the last commit", $count->($n), 1);
        check_state($worker, $dbh);
    }
}

sub copy {
    my ($worker) = @_;
    my $dbh = connect_to();
    while (next_round($worker)) {
        my $first = $worker->{rounds} * $COPY_ROWS;
        my @numbers = ($first .. $first + $COPY_ROWS - 1);
        $dbh->do("copy matrix_entry (driver, worker, n) from stdin");
        $dbh->pg_putcopydata("$NAME\t$worker->{name}\t$_\n") for @numbers;
        $dbh->pg_putcopyend;
        acknowledge($worker, @numbers);
        $dbh->do("copy (select n from matrix_entry where driver = '$NAME' and worker = '$worker->{name}' and n >= $first order by n) to stdout");
        my ($line, $got) = ('', '');
        $got .= $line while $dbh->pg_getcopydata($line) >= 0;
        expect("what COPY gives back", $got, join('', map { "$_\n" } @numbers));
        check_state($worker, $dbh);
    }
}

sub notify {
    my ($worker) = @_;
    my ($listener, $dbh) = (connect_to(), connect_to());
    $listener->do("listen \"$NAME\"");
    while (next_round($worker)) {
        $dbh->do("select pg_notify(?, ?)", undef, $NAME, $worker->{rounds});
        my ($end, $got) = (time + $NOTIFY_PATIENCE_S, undef);
        until ($got = $listener->pg_notifies or time > $end) {
            vec(my $sockets = '', $listener->{pg_socket}, 1) = 1;
            select($sockets, undef, undef, 0.1);
        }
        if ($got) {
            expect("the notification", $got->[2], $worker->{rounds});
        } else {
            $worker->{lost}++;
        }
        check_state($worker, $listener);
    }
}

sub cancel {
    my ($worker) = @_;
    my $dbh = connect_to();
    while (next_round($worker)) {
        $dbh->do("select pg_sleep(5)", {pg_async => PG_ASYNC});
        sleep $CANCEL_AFTER_S;
        my $begun = time;
        die "the cancel did not arrive\n" unless $dbh->pg_cancel && time - $begun < 4;
        check_state($worker, $dbh);
    }
}

sub logins {
    my ($worker) = @_;
    while (next_round($worker)) {
        my $dbh = connect_to();
        $dbh->do($INSERT, undef, $NAME, $worker->{name}, $worker->{rounds});
        acknowledge($worker, $worker->{rounds});
        check_state($worker, $dbh);
        $dbh->disconnect;
    }
}

my %bodies = (transactions => \&transactions, copy => \&copy, notify => \&notify, cancel => \&cancel, logins => \&logins);
my %children;
for my $name (sort keys %bodies) {
    defined(my $pid = open(my $pipe, "-|")) or die "fork: $!";
    if ($pid == 0) {
        my $worker = {name => $name, rounds => 0, switches => 0, lost => 0, acknowledged => []};
        eval { $bodies{$name}->($worker); 1 } or $worker->{error} = "$name: $@";
        print encode_json({map { $_ => $worker->{$_} } qw(rounds switches lost acknowledged error)});
        exit 0;
    }
    $children{$name} = $pipe;
}
open(my $ledger, ">", $LEDGER) or die "$LEDGER: $!";
my $summary = {name => $NAME, errors => [], workers => {}};
for my $name (sort keys %children) {
    my $pipe = $children{$name};
    my $worker = decode_json(do { local $/; <$pipe> });
    print $ledger "$name $_\n" for @{$worker->{acknowledged}};
    $worker->{acknowledged} = @{$worker->{acknowledged}};
    push @{$summary->{errors}}, $worker->{error} if $worker->{error};
    $summary->{workers}{$name} = $worker;
}
close $ledger;
print encode_json($summary), "\n";
exit(@{$summary->{errors}} ? 1 : 0);
