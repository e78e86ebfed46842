//! Header maps, trailers, properties.

use super::Topic::{Headers, Properties};
use super::{Difference, read, row, run};

pub(super) static ROWS: &[Difference] = &[
    row(
        Headers,
        "end-on-headers",
        "headers of a request without a body",
        run("end_of_stream is true"),
        run("end_of_stream is false"),
    )
    .is(&["end_of_stream_on_headers"]),
    row(
        Headers,
        "headers-pause",
        "Pause from the request headers, with no call under way",
        run("everything waits, without body callbacks, until a tick or a call's answer goes on"),
        run("the request hangs for ever"),
    )
    .is(&["flow"]),
    row(
        Headers,
        "headers-pause-for-body",
        "Pause from the request headers with allow_on_headers_stop_iteration",
        run("the body comes, and headers can be changed when it is complete"),
        run("the request hangs for ever: there is no such option"),
    )
    .is(&["flow"]),
    row(
        Headers,
        "response-headers-pause",
        "Pause from the response headers with allow_on_headers_stop_iteration",
        run("the headers wait for the body, and can be changed then"),
        run("it is ignored, and changing them with the body traps"),
    )
    .is(&["flow"]),
    row(
        Headers,
        "headers-after-continue",
        "reading request headers after Continue",
        run("BadArgument, and an empty map; in on_log they are there again"),
        run("they are there"),
    )
    .is(&["headers_stay"]),
    row(
        Headers,
        "whole-map",
        "reading a whole map of more than 100 lines",
        run("all of them"),
        run("the first 100"),
    )
    .is(&["map_limit"]),
    row(
        Headers,
        "too-many-headers",
        "a request with 101 header lines, read as a map",
        run("431 from the host, the filter is not asked"),
        run("a broken map: who walks it runs past its end"),
    )
    .spec("all of them")
    .is(&["map_limit", "request_lines"]),
    row(
        Headers,
        "empty-map",
        "reading the response trailers in the response headers",
        run("Ok, and no bytes"),
        run("BadArgument"),
    )
    .is(&["empty_map_is_nothing"]),
    row(
        Headers,
        "not-utf8",
        "a header value that is not UTF-8",
        run("its bytes, in and out"),
        run("its bytes, in and out"),
    ),
    row(
        Headers,
        "header-case",
        "the name of a header as the map shows it",
        run("lower-case"),
        run("as the client wrote it"),
    )
    .is(&["lower_case_names"]),
    row(
        Headers,
        "first-of-duplicates",
        "reading by name a header that came twice",
        run("the first"),
        run("the first"),
    ),
    row(
        Headers,
        "path-view",
        "reading :path",
        run("as the client sent it"),
        run("decoded and normalised, with the raw query"),
    )
    .is(&["path"]),
    row(
        Headers,
        "path-edit",
        "setting :path",
        run("the upstream gets it"),
        read("the upstream gets the client's: the gateway proxies to $upstream_uri"),
    )
    .is(&["path"]),
    row(
        Headers,
        "authority",
        "reading :authority",
        run("the Host"),
        run("the server's name"),
    )
    .is(&["authority"]),
    row(
        Headers,
        "host-header",
        "reading the header host",
        run("the Host"),
        run("the Host"),
    ),
    row(
        Headers,
        "added-request-headers",
        "headers that the host adds before filters see the request",
        run("x-forwarded-proto and more"),
        run("none"),
    )
    .spec("none")
    .is(&["adds_request_headers"]),
    row(
        Headers,
        "request-header-removal",
        "removing a request header",
        run("the upstream does not get it"),
        run("the upstream still gets it"),
    )
    .is(&["request_removal"]),
    row(
        Headers,
        "absent-header-removal",
        "removing cookie or x-forwarded-for where there is none",
        run("nothing happens"),
        run("the worker dies: a segmentation fault"),
    )
    .is(&["fatal_removal"]),
    row(
        Headers,
        "set-duplicated-request",
        "setting a request header that came twice",
        run("one line is left"),
        run("the first changes, the second stays"),
    )
    .is(&["set_duplicated_request"]),
    row(
        Headers,
        "set-duplicated-response",
        "setting a response header that came twice",
        run("one line is left"),
        run("no line is left"),
    )
    .is(&["set_duplicated_response"]),
    row(
        Headers,
        "add-builtin",
        "adding a line of authorization, host, user-agent and other headers that nginx knows",
        run("it is joined to the line that is there"),
        run("it is not added, and the answer is Ok"),
    )
    .spec("a line is added")
    .is(&["add_refused", "joined_request"]),
    row(
        Headers,
        "joined-request",
        "accept, origin, user-agent and some others, sent twice",
        run("one line, joined with a comma"),
        run("two lines"),
    )
    .spec("two lines")
    .is(&["joined_request"]),
    row(
        Headers,
        "refused-duplicates",
        "authorization sent twice",
        run("one line, joined with a comma"),
        run("400 from the host, the filter is not asked"),
    )
    .spec("two lines")
    .is(&["joined_request", "refused_duplicates"]),
    row(
        Headers,
        "joined-response",
        "cache-control, etag, vary and some others, answered twice",
        run("one line, joined with a comma"),
        read("two lines"),
    )
    .spec("two lines")
    .is(&["joined_response"]),
    row(
        Headers,
        "request-trailers",
        "a request with trailers",
        run("on_request_trailers runs and they can be read"),
        read("they are dropped, no callback runs"),
    )
    .is(&["flow"]),
    row(
        Properties,
        "property-encoding",
        "reading numbers and addresses as properties",
        run("little-endian numbers; addresses with their port"),
        run("text; addresses without a port"),
    )
    .is(&["properties"]),
    row(
        Properties,
        "property-set",
        "setting a property of one's own",
        run("Ok; later filters read it, also as filter_state"),
        run("NotFound"),
    )
    .is(&["properties"]),
    row(
        Properties,
        "property-unknown",
        "reading a property that does not exist",
        run("NotFound"),
        run("NotFound"),
    ),
    row(
        Properties,
        "property-route-name",
        "reading xds.route_name of an unnamed route",
        run("Ok and nothing"),
        run("NotFound"),
    )
    .is(&["properties"]),
    row(
        Properties,
        "property-after-continue",
        "reading request.path in the response",
        run("NotFound: it went with the request headers"),
        run("it is there"),
    )
    .is(&["properties"]),
    row(
        Properties,
        "property-in-root",
        "reading plugin_name and request.path in a tick",
        run("the entry's name, and no path"),
        run("the entry's name, and no path"),
    ),
    row(
        Properties,
        "property-in-configure",
        "reading plugin_name in on_configure",
        run("the entry's name"),
        run("the worker dies: a segmentation fault"),
    )
    .is(&["properties"]),
];
