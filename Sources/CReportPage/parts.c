// SPDX-License-Identifier: MIT
#include "CReportPage.h"

static const unsigned char style[] = {
#embed "page/style.css"
};
static const unsigned char body[] = {
#embed "page/body.html"
};
// The parts of one script. Later parts use earlier ones.
static const unsigned char script[] = {
#embed "page/data.js"
    ,
#embed "page/words.js"
    ,
#embed "page/view.js"
    ,
#embed "page/states.js"
    ,
#embed "page/signs.js"
    ,
#embed "page/draw.js"
    ,
#embed "page/panel.js"
    ,
#embed "page/app.js"
};

const struct creport_part creport_style = {style, sizeof style};
const struct creport_part creport_body = {body, sizeof body};
const struct creport_part creport_script = {script, sizeof script};
