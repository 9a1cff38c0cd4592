#!/usr/bin/perl
# SPDX-License-Identifier: MIT
# Rewrites every text of a Swift source: inserts a mark after each word of a string literal that is followed by another word.
# Code that searches a message for words then finds none. Without the marks the output is unchanged.
#
# usage: reword.pl FILE...     prints how many texts it has rewritten
use strict;
use warnings;

# A byte that may occur in the name of a litmus test.
my $mark = "~";
my $count = 0;

# The text of one literal between two escapes or interpolations.
sub reworded {
    my ($text) = @_;
    $count++ if $text =~ s/(?<=[\w.,:;)'])(?= ?[\w(]*[a-z])(?= )/$mark/g;
    return $text;
}

sub rewrite {
    my ($source) = @_;
    my $out = '';
    # The enclosing context: open parentheses of code in an interpolation, or the end of a literal.
    my @open = ({ code => 1, depth => 0 });
    pos($source) = 0;
    while (pos($source) < length $source) {
        my $place = $open[-1];
        if ($place->{code}) {
            if ($source =~ m{\G(//[^\n]*|/\*.*?\*/|\#/.*?/\#)}gcs) { $out .= $1 }
            elsif ($source =~ /\G(#*)("""|")/gc) {
                push @open, { code => 0, end => $2 . $1, escape => "\\" . $1 };
                $out .= $1 . $2;
            }
            elsif ($source =~ /\G([()])/gc) {
                my $bracket = $1;
                $out .= $bracket;
                $place->{depth} += $bracket eq '(' ? 1 : -1;
                pop @open if $place->{depth} < 0 and @open > 1;
            }
            elsif ($source =~ m{\G([^"#/()]+|.)}gcs) { $out .= $1 }
        }
        else {
            my ($end, $escape) = @$place{qw(end escape)};
            if ($source =~ /\G\Q$end\E/gc) { $out .= $end; pop @open }
            elsif ($source =~ /\G(\Q$escape\E\()/gc) { $out .= $1; push @open, { code => 1, depth => 0 } }
            elsif ($source =~ /\G(\Q$escape\E.)/gcs) { $out .= $1 }
            elsif ($source =~ /\G((?:(?!\Q$end\E|\Q$escape\E).)+)/gcs) { $out .= reworded($1) }
        }
    }
    die "unterminated string literal\n" if @open > 1;
    return $out;
}

for my $file (@ARGV) {
    local $/;
    open my $in, '<:raw', $file or die "$file: $!\n";
    my $source = <$in>;
    close $in;
    my $result = eval { rewrite($source) } // die "$file: $@";
    open my $out, '>:raw', $file or die "$file: $!\n";
    print $out $result;
    close $out or die "$file: $!\n";
}
print "$count\n";
