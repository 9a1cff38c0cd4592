# SPDX-License-Identifier: MIT
# Writes what docs/lecture/build has collected: slides, notes, documents and an index as HTML.
package Render;
use strict;
use warnings;
use utf8;
use MIME::Base64 qw(encode_base64);

sub slurp { my ($path) = @_; local $/; open my $file, '<:encoding(UTF-8)', $path or die "$path: $!\n"; return <$file> }
sub slurp_bytes { my ($path) = @_; local $/; open my $file, '<:raw', $path or die "$path: $!\n"; return <$file> }
sub write_text { my ($path, $text) = @_; open my $file, '>:encoding(UTF-8)', $path or die "$path: $!\n"; print $file $text; close $file or die "$path: $!\n" }
sub escaped { my ($text) = @_; return $text =~ s/&/&amp;/gr =~ s/</&lt;/gr =~ s/>/&gt;/gr =~ s/"/&quot;/gr }

# The documents that become pages, if they exist.
my @documents = map { "docs/$_.md" } qw(lecture lecture-day exercises playground lecture-confidential GLOSSARY);
my %documents = map { ($_ => s{^docs/(.*)\.md$}{$1.html}r) } @documents;

# MARK: - text

my $scratch;
sub markdown {
    my ($text) = @_;
    $scratch //= File::Temp->new(SUFFIX => '.md');
    write_text("$scratch", $text);
    local $/;
    open my $pipe, '-|:encoding(UTF-8)', 'cmark-gfm', '-e', 'table', '--table-prefer-style-attributes', "$scratch" or die;
    my $html = <$pipe>;
    close $pipe or die "cmark-gfm failed\n";
    return $html =~ s/<!-- raw HTML omitted -->\n?//gr;
}

# A line of text without a paragraph around it.
sub inline { return markdown($_[0]) =~ s{^<p>|</p>\s*$}{}gr }

# A line with the colours of the terminal as HTML. A private page is blue and a shared one ochre, as in the pictures.
my %classes = (1 => 'b', 2 => 'dim', 31 => 'bad', 32 => 'good', 33 => 'shared', 34 => 'private', 35 => 'held', 36 => 'info');
sub coloured {
    my ($line) = @_;
    my ($html, @open) = ('');
    for my $part (split /(\e\[[0-9;]*[A-Za-z])/, $line) {
        if ($part =~ /^\e\[([0-9;]*)m$/) {
            @open = $1 eq '' || $1 eq '0' ? () : (@open, grep { defined } map { $classes{$_ + 0} } split /;/, $1);
        }
        elsif ($part !~ /^\e/ && $part ne '') {
            $html .= @open ? '<span class="' . join(' ', @open) . '">' . escaped($part) . '</span>' : escaped($part);
        }
    }
    return $html;
}

# MARK: - pieces of a slide

# The lines that a line takes at a width; all but the first are indented by two columns.
sub wrapped {
    my ($line, $width) = @_;
    my ($lines, $used) = (1, 0);
    for my $word (split /(?<=\s)(?=\S)/, $line) {
        my $length = length($word =~ s/\s+$//r);
        ($lines, $used) = ($lines + 1, 2) if $used + $length > $width && $used > 2;
        $used += length $word;
    }
    return $lines;
}

# Commands with what they print, in letters as large as fit into `height` rem.
sub console {
    my ($piece, $height) = @_;
    my (@html, @texts);
    my $add = sub { my ($html, $text, $class) = @_; push @html, "<div" . ($class ? " class=\"$class\"" : '') . ">" . ($html eq '' ? ' ' : $html) . "</div>"; push @texts, $text };
    for my $typed (@{ $piece->{typed} }) {
        $add->('<b>$ ' . unbroken($typed->{command}) . '</b>', "\$ $typed->{command}", 'typed');
        for my $line (@{ $typed->{printed} }) {
            if (defined $line) { $add->(coloured($line), $line =~ s/\e\[[0-9;]*[A-Za-z]//gr) }
            else { $add->('…', '…', 'dim') }
        }
        if ($typed->{asked}) { $add->('<b>$ echo $?</b>', '', 'typed'); $add->($typed->{status}, '') }
    }
    my $size = 4.2;
    $size -= 0.1 while $size > 1.9 && do {
        my ($per_line, $lines, $longest) = (int(115 / ($size * 0.6025)), 0, 0);
        for (@texts) {
            $lines += wrapped($_, $per_line);
            $longest = length if length > $longest && length() <= 64;
        }
        $lines * $size * 1.3 > $height || $longest > $per_line;
    };
    return sprintf '<div class="console" style="font-size:%.1frem">%s</div>', $size, join '', @html;
}

# A picture for a projector: without heading, legend and table, whose letters are too small; rows as high as the slide permits,
# and larger letters and marks.
sub for_projector {
    my ($svg) = @_;
    my ($width) = $svg =~ /viewBox="0 0 ([\d.]+) [\d.]+"/ or die "a picture has no viewBox\n";
    my @labels = $svg =~ /<text x="[\d.]+" y="([\d.]+)"[^>]*text-anchor="end"/g;
    my ($events) = $svg =~ /<text x="[\d.]+" y="([\d.]+)"[^>]*>event</;
    my ($times) = $svg =~ /<text x="[\d.]+" y="([\d.]+)"[^>]*>(?:sim\. )?time</;
    return $svg unless @labels && $events && $times;
    my $top = (sort { $a <=> $b } @labels)[0] - 16;
    my $bottom = $events - 16;
    my $marks = () = $svg =~ /<g>/g;
    # The slide has room for this height, the axis included.
    my $room = 430;
    my $factor = ($room - 58) / ($bottom - $top);
    $factor = 4 if $factor > 4;
    my ($letters, $scale) = $marks < 60 ? (20, 1.6) : $marks < 100 ? (16, 1.2) : (15, 1);
    my $height = ($bottom - $top) * $factor + 58;
    my $stretched = sub { sprintf '%.1f', ($_[0] - $top) * $factor };
    # The name of a state is left out if the next one in its row begins before it ends.
    my (%left_out, %next);
    my @names;
    push @names, [$1, $2, length $3] while $svg =~ m{<text x="([\d.]+)" y="([\d.]+)"[^>]*font-weight="bold" text-anchor="start"[^>]*>([^<]*)<}g;
    for (sort { $b->[0] <=> $a->[0] } @names) {
        my ($x, $y, $length) = @$_;
        if (defined $next{$y} && $x + $length * $letters * 0.5 > $next{$y}) { $left_out{"$x $y"} = 1 } else { $next{$y} = $x }
    }
    my %last;
    my $text = sub {
        my ($all, $x, $y) = @_;
        return '' if $y > $times || $y < $top || $left_out{"$x $y"} && $all =~ /bold" text-anchor="start"/;
        # The baseline is a third of a letter below the middle of its row.
        my $at = $y == $times ? $height - 8 : $y == $events ? $height - 32 : $stretched->($y - 4.5) + $letters * 0.36;
        # Rows closer together than letters are high have only every other label.
        return '' if $y < $events && $all =~ /text-anchor="(?:end|start)"/ && defined $last{$x} && abs($at - $last{$x}) < $letters && $at != $last{$x};
        $last{$x} = $at;
        my $size = $y >= $events ? 19 : $letters;
        return $all =~ s/y="[^"]*"/y="$at"/r =~ s/font-size="[^"]*"/font-size="$size"/r;
    };
    my ($head, $defs, $body) = $svg =~ m{\A(.*?)(<defs>.*?</defs>)(.*)\z}s or return $svg;
    $head =~ s/viewBox="[^"]*" width="[^"]*" height="[^"]*"/sprintf 'viewBox="0 0 %s %.0f" width="%s" height="%.0f"', $width, $height, $width, $height/e;
    $body =~ s{<text x="([\d.]+)" y="([\d.]+)".*?</text>}{$text->($&, $1, $2)}gse;
    $body =~ s{<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"[^>]*>}{
        my ($all, $y, $h) = ($&, $1, $2);
        my ($at, $high) = ($stretched->($y), sprintf '%.1f', $h * $factor);
        $y > $bottom ? '' : $all =~ s/ y="[^"]*"/ y="$at"/r =~ s/ height="[^"]*"/ height="$high"/r }ge;
    $body =~ s{<path d="M([\d.]+) ([\d.]+)H}{"<path d=\"M$1 " . $stretched->($2) . 'H'}ge;
    $body =~ s{<path [^>]*transform="translate\(([\d.]+) ([\d.]+)\)"[^>]*>}{
        my ($all, $x, $y) = ($&, $1, $2);
        my $at = $stretched->($y);
        $y > $bottom ? '' : $all =~ s/translate\([^)]*\)/translate($x $at) scale($scale)/r }ge;
    # Of many rectangles with a pattern, Chromium makes a PDF of 100 MB.
    if ($marks >= 60) {
        my %plain = (none => '#eeece6', shared => '#f6cf6a', held => '#9c2f83" fill-opacity=".8', failed => '#c2280f" fill-opacity=".5',
            converting => '#10131a" fill-opacity=".4');
        $body =~ s{fill="url\(#(\w+)\)"}{ $plain{$1} ? "fill=\"$plain{$1}\"" : $& }ge;
    }
    return $head . $defs . $body;
}

sub picture {
    my ($piece, $facts) = @_;
    my $bytes = for_projector(slurp("$facts->{work}/$piece->{file}"));
    utf8::encode($bytes);
    return sprintf '<figure><img alt="%s" src="data:image/svg+xml;base64,%s"><figcaption>%s<code>%s</code></figcaption></figure>',
        escaped($piece->{text} || $piece->{file}), encode_base64($bytes, ''),
        $piece->{text} ? '<p>' . escaped($piece->{text}) . '</p>' : '', unbroken($facts->{drawn}{ $piece->{file} });
}

# A command that wraps between its words only.
sub unbroken { my ($line) = @_; return join ' ', map { '<span class="word">' . escaped($_) . '</span>' } split / /, $line }

# The kernel that answered, as the footer names it.
sub kernel { my ($text) = @_; return $text =~ /SoftKVM \(([^)]*)\)(?:: (model of \w+))?/ ? do { my ($in, $model) = ($1, $2); $model //= $1 if $in =~ s/; (model of \w+).*//; "SoftKVM ($in)" . ($model ? ", $model" : '') } : '' }

sub parts_table {
    my ($facts) = @_;
    my $rows = join '', map { sprintf '<tr><td>%d</td><td>%s</td><td>%s</td></tr>', $_->{minute}, escaped($_->{title}),
        $_->{exercise} =~ /^(\d+), (\d+) min/ ? "exercise $1" : $_->{exercise} =~ /^\d+ to/ ? "exercises $_->{exercise}" : "exercise $_->{exercise}" } @{ $facts->{parts} };
    return "<table class=\"small\"><tr><th>minute</th><th>part</th><th></th></tr>$rows</table>";
}

sub contents_table {
    my ($table) = slurp('docs/lecture-confidential.md') =~ /<!-- lab\/contents .*?-->\n(.*?)<!-- end -->/s or die "docs/lecture-confidential.md has no table\n";
    return markdown($table) =~ s/<table>/<table class="tight">/r;
}

sub slide {
    my ($slide, $facts) = @_;
    my @pieces = @{ $slide->{pieces} };
    my $text_lines = 0;
    $text_lines += grep { /\S/ } @{ $_->{lines} } for grep { $_->{kind} eq 'text' } @pieces;
    my $height = 54 - 5.5 * $text_lines;
    my ($body, $kernel) = ('', '');
    for my $piece (@pieces) {
        my $kind = $piece->{kind};
        $body .= $kind eq 'text' ? markdown(join("\n", @{ $piece->{lines} }) . "\n")
            : $kind eq 'console' ? console($piece, $height)
            : $kind eq 'picture' ? picture($piece, $facts)
            : $kind eq 'parts' ? parts_table($facts) : contents_table();
        $kernel ||= kernel($_->{kernel} // '') for @{ $piece->{typed} // [] };
        $kernel = kernel(slurp("$facts->{work}/$piece->{file}")) if $kind eq 'picture';
    }
    my $n = $slide->{number};
    my $class = $n == 1 ? 'first' : $slide->{level} == 1 ? 'part' : $slide->{title} =~ /^Exercise/ ? 'exercise' : 'plain';
    my $minute = $class eq 'part' ? "<p class=\"minute\">minute $slide->{minute}</p>" : '';
    return sprintf "<div class=\"frame\"><section id=\"%d\" class=\"%s\">%s<h1>%s</h1>\n<div class=\"body\">%s</div>\n"
        . "<footer><span>%s</span><span>%s</span><span>%d / %d</span></footer></section>\n<aside><b>minute %d</b> %s</aside></div>\n",
        $n, $class, $minute, inline($slide->{title}), $body, escaped($class eq 'part' ? '' : $slide->{part}),
        $kernel ? 'answered by ' . escaped($kernel) . ', simulated' : '', $n, scalar @{ $facts->{slides} }, $slide->{minute},
        markdown(join("\n", @{ $slide->{notes} }) . "\n");
}

# MARK: - pages

my $page_style = <<'CSS';
body{font:17px/1.5 "DejaVu Sans",Verdana,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#15181e;background:#fff}
h1,h2{line-height:1.2}code,pre{font-family:"DejaVu Sans Mono",monospace;font-size:.92em}
pre{background:#f4f2ec;padding:.7rem 1rem;overflow-x:auto}table{border-collapse:collapse}
td,th{border-bottom:1px solid #c9c5ba;padding:.3rem .8rem .3rem 0;text-align:left;vertical-align:top}
figure{margin:1.5rem 0}img{max-width:100%;border:1px solid #c9c5ba}@media print{body{font-size:11pt}}
CSS

sub page { my ($title, $body) = @_; return "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>" . escaped($title) . "</title>\n<style>\n$page_style</style>\n$body</html>\n" }

# A document of the repository. Links to other pages of the lecture stay links, others become text.
sub document {
    my ($path, $drawn) = @_;
    my $text = slurp($path);
    my $html = markdown($text);
    $html =~ s{<h([1-6])>(.*?)</h\1>}{ my ($level, $title) = ($1, $2); my $id = lc($title =~ s/<[^>]*>//gr); $id =~ s/[^\w\- ]//g; $id =~ tr/ /-/; "<h$level id=\"$id\">$title</h$level>" }ge;
    $html =~ s{<a href="(?!https?:|#)([^"#]*)(#[^"]*)?">(.*?)</a>}{
        my ($target, $anchor, $label) = ($1, $2 // '', $3);
        my $page = $documents{"docs/$target"};
        $page && -e "docs/$target" ? "<a href=\"$page$anchor\">$label</a>" : $label }gse;
    $html =~ s{<code>([a-z]+\.(?:html|svg))</code>}{ $drawn->{$1} ? "<a href=\"$1\"><code>$1</code></a>" : "<code>$1</code>" }ge;
    return page($text =~ /^# (.*)/m ? $1 : $path, $html);
}

my $slide_style = <<'CSS';
@page{size:1280px 720px;margin:0}
:root{color-scheme:light;font-size:min(.78125vw,1.388889vh)}
html{background:#fff}
body{margin:0;font-family:"DejaVu Sans",Verdana,sans-serif;color:#15181e}
.frame{height:100vh;display:grid;place-items:center;position:relative;overflow:hidden}
section{width:128rem;height:72rem;box-sizing:border-box;padding:3.6rem 5.6rem 5.4rem;display:flex;flex-direction:column;position:relative;overflow:hidden}
h1{font-size:4.2rem;line-height:1.15;margin:0 0 2rem;color:#123e73}
.body{flex:1;min-height:0;font-size:3.2rem;line-height:1.4}
.body p{margin:0 0 1.6rem}.body ul{margin:0;padding-left:4rem}.body li{margin-bottom:1.4rem}
code,.console{font-family:"DejaVu Sans Mono","Liberation Mono",monospace}
.body code{font-size:.92em}
.console{line-height:1.3;white-space:pre-wrap;overflow-wrap:anywhere}
.console div{padding-left:2ch;text-indent:-2ch}.console .typed{color:#123e73}
.dim{color:#59606c}.bad{color:#b3230c}.good{color:#19692c}.shared{color:#8a5a00}.private{color:#1f5fa8}.held{color:#9c2f83}.info{color:#0b6470}.b{font-weight:bold}
figure{margin:0;height:100%;display:flex;flex-direction:column}
figure img{flex:1;min-height:0;width:116.8rem;object-fit:contain;object-position:left top}
figcaption p{font-size:2.6rem;margin:1rem 0 .6rem}.body figcaption code{font-size:2.2rem;color:#59606c}
table{border-collapse:collapse;font-size:2.7rem}td,th{padding:.55rem 2.6rem .55rem 0;text-align:left;border-bottom:1px solid #c9c5ba}
table.tight{width:100%;font-size:2.2rem}table.tight td{padding-right:1.6rem}table.small{width:100%;font-size:2.7rem}
footer{position:absolute;left:5.6rem;right:5.6rem;bottom:1.6rem;display:flex;justify-content:space-between;font-size:1.7rem;color:#59606c}
.first,.part{justify-content:center}.first .body,.part .body{flex:none}
.first h1,.part h1{font-size:7.2rem;margin-bottom:3rem}.part{background:#eef3f9}.minute{font-size:2.6rem;color:#59606c;margin:0 0 1rem}
.word{white-space:nowrap}.exercise{background:#fdf6e3}
aside{display:none}
.notes aside{display:block;position:absolute;left:0;right:0;bottom:0;max-height:50vh;overflow:auto;background:#15181e;color:#fff;font-size:20px;line-height:1.4;padding:.6em 1.2em}
aside p{margin:.3em 0}aside b{color:#f6cf6a}
.paged .frame:not(.shown){display:none}
@media print{.paged .frame:not(.shown){display:grid}:root{font-size:10px}.frame{height:720px;break-after:page}aside{display:none!important}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
CSS

my $script = <<'JS';
const slides = [...document.querySelectorAll("section")];
let current = 0;
// One slide at a time; without this script, the page scrolls.
function go(n) {
    current = Math.max(0, Math.min(slides.length - 1, n));
    slides.forEach((s, i) => s.parentNode.classList.toggle("shown", i === current));
    history.replaceState(null, "", "#" + (current + 1));
}
addEventListener("keydown", e => {
    if (e.ctrlKey || e.altKey || e.metaKey) return;
    const move = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, Enter: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1, Backspace: -1 }[e.key];
    if (move) go(current + move);
    else if (e.key === "Home") go(0);
    else if (e.key === "End") go(slides.length - 1);
    else if (e.key === "n") document.body.classList.toggle("notes");
    else return;
    e.preventDefault();
});
for (const s of slides) {
    const inner = s.querySelector(".body"), box = s.getBoundingClientRect(), foot = s.querySelector("footer").getBoundingClientRect();
    const image = s.querySelector("img");
    const low = Math.max(...[...inner.children].map(c => c.getBoundingClientRect().bottom), 0);
    if (low > foot.top - 2 || inner.scrollWidth > inner.clientWidth + 1 || s.scrollWidth > s.clientWidth + 1 || image && image.getBoundingClientRect().height < box.height / 5)
        s.dataset.overflow = "";
}
document.body.dataset.ready = "";
document.body.classList.add("paged");
const open = () => go((parseInt(location.hash.slice(1)) || 1) - 1);
addEventListener("hashchange", open);
addEventListener("click", e => { if (!String(getSelection())) go(current + (e.clientX < innerWidth / 3 ? -1 : 1)); });
open();
JS

sub write_all {
    my ($output, %facts) = @_;
    my @slides = @{ $facts{slides} };
    my $title = $slides[0]{title};
    write_text("$output/slides.html", "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>" . escaped($title) . "</title>\n<style>\n$slide_style</style>\n<body>\n"
        . join('', map { slide($_, \%facts) } @slides) . "<script>\n$script</script>\n</body>\n</html>\n");
    my $rows = join '', map { sprintf "<tr><td>%d</td><td>%d</td><td><b>%s</b>%s</td></tr>\n", $_->{minute}, $_->{number}, inline($_->{title}), markdown(join("\n", @{ $_->{notes} }) . "\n") } @slides;
    write_text("$output/notes.html", page("$title: notes", "<h1>" . escaped($title) . ": notes</h1>\n<table><tr><th>minute</th><th>slide</th><th></th></tr>\n$rows</table>\n"));
    my @pages = grep { -e } @documents;
    write_text("$output/$documents{$_}", document($_, $facts{drawn})) for @pages;
    my $pictures = join '', map { my $html = s/\.svg$/.html/r; sprintf "<figure><a href=\"%s\"><img src=\"%s\" alt=\"%s\"></a><figcaption><code>%s</code></figcaption></figure>\n",
        $facts{drawn}{$html} ? $html : $_, $_, $_, escaped($facts{drawn}{$_}) } sort grep { /\.svg$/ } keys %{ $facts{drawn} };
    my $list = join '', map { "<li><a href=\"$_->[0]\">$_->[1]</a></li>\n" } ['slides.html', 'Slides. Keys: arrows, Home, End; n shows the notes'], ['slides.pdf', 'Slides as PDF'], ['notes.html', 'Notes for the speaker'],
        map { [$documents{$_}, escaped(slurp($_) =~ /^# (.*)/m ? $1 : $_)] } @pages;
    write_text("$output/index.html", page($title, "<h1>" . escaped($title) . "</h1>\n<ul>\n$list</ul>\n<h2>Pictures</h2>\n$pictures"));
}

sub summary {
    my ($output, %facts) = @_;
    my $pictures = grep { /\.svg$/ } keys %{ $facts{drawn} };
    my $slides = @{ $facts{slides} };
    return <<"TEXT";
$output/index.html    everything that follows
$output/slides.html   $slides slides; key n: notes
$output/slides.pdf    the same, one slide per page
$output/notes.html    what to say, with minutes
$output/*.svg         $pictures pictures

Check the day before (docs/lecture-day.md has what to do if one fails):
  1. Open $output/slides.html on the projector: is the text on the last row of benches readable?
  2. Copy $output to a USB stick. Open slides.pdf from there, without a network.
  3. Type in the terminal of the lecture: minivmm run hello --backend soft
  4. Set the terminal to 80 columns and the light theme: minivmm demo 5 --backend soft
  5. Open $output/race.html in the browser of the lecture, and press the right arrow key.
  6. Unplug the power supply, and type: time minivmm demo --backend soft
TEXT
}

1;
