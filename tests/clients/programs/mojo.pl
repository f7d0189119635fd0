# Mojo::UserAgent, whose names are characters. A part with a type of its own would be a file.
use strict;
use warnings;
use Mojo::Asset::File;
use Mojo::UserAgent;
use Mojolicious;

$| = 1;
my $agent = Mojo::UserAgent->new(inactivity_timeout => 60);
print Mojolicious->VERSION, "\n";
open my $job, "<:encoding(UTF-8)", $ARGV[0] or die $!;
while (my $line = <$job>) {
    chomp $line;
    my ($mode, $url, $download, $save, @parts) = split /\t/, $line, -1;
    if ($mode ne "plain") { print "-\n"; next }
    my (%form);
    while (my ($kind, $name, $second, $third) = splice @parts, 0, 4) {
        my $part = $second;
        $part = { file => Mojo::Asset::File->new(path => $second), filename => $third } if $kind eq "file";
        push @{ $form{$name} }, $part;
    }
    my $status = $agent->post($url => form => \%form)->result->code;
    my $answer = $agent->get($download)->result;
    $answer->save_to($save);
    print "$status ", $answer->code, "\n";
}
