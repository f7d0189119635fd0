# LWP: HTTP::Request::Common makes the form of bytes; with a content that is a piece of code it is sent in chunks.
use strict;
use warnings;
use HTTP::Request::Common qw(POST);
use LWP::UserAgent;

$| = 1;
my $agent = LWP::UserAgent->new(timeout => 60);
print "$LWP::VERSION\n";
open my $job, "<:raw", $ARGV[0] or die $!;
while (my $line = <$job>) {
    chomp $line;
    my ($mode, $url, $download, $save, @parts) = split /\t/, $line, -1;
    if ($mode eq "expect") { print "-\n"; next }
    my @content;
    while (my ($kind, $name, $second, $third) = splice @parts, 0, 4) {
        if ($kind eq "file") { push @content, $name => [$second, $third] }
        elsif ($third)       { push @content, $name => [undef, undef, Content_Type => $third, Content => $second] }
        else                 { push @content, $name => $second }
    }
    $HTTP::Request::Common::DYNAMIC_FILE_UPLOAD = $mode eq "stream";
    my $request = POST $url, Content_Type => "form-data", Content => \@content;
    # A length that it could count it tells.
    $request->remove_header("Content-Length") if $mode eq "stream";
    my $status = $agent->request($request)->code;
    my $got = $agent->get($download, ":content_file" => $save)->code;
    print "$status $got\n";
}
