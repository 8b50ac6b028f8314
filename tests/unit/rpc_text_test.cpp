// SPDX-License-Identifier: GPL-3.0-or-later
//
// Names that are not UTF-8 in messages: the receiver can read each message, and the rest of it is as it was.
#include <catch2/catch_test_macros.hpp>

#include "rpc/sckpt.pb.h"
#include "rpc/text.h"

using namespace sckpt;

TEST_CASE("well-formed text is left as it is", "[rpc][text]") {
    for (const std::string text : {"", "plain", "/home/gr\xc3\xbc\xc3\x9f" "e", "\xe2\x82\xac \xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"})
        CHECK(rpc::utf8_text(text) == text);
    const std::string with_zero("a\0b", 3);
    CHECK(rpc::utf8_text(with_zero) == with_zero);
}

TEST_CASE("bytes that are no UTF-8 are shown by their numbers", "[rpc][text]") {
    CHECK(rpc::utf8_text("a\xff" "b") == "a\\xffb");
    CHECK(rpc::utf8_text("\x80") == "\\x80");
    CHECK(rpc::utf8_text("\xc0\xaf") == "\\xc0\\xaf");                        // overlong
    CHECK(rpc::utf8_text("\xe0\x80\x80") == "\\xe0\\x80\\x80");              // overlong
    CHECK(rpc::utf8_text("\xed\xa0\x80") == "\\xed\\xa0\\x80");              // a surrogate
    CHECK(rpc::utf8_text("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");    // beyond the last character
    CHECK(rpc::utf8_text("\xe2\x82") == "\\xe2\\x82");                        // cut short
    CHECK(rpc::utf8_text("\xc3\xc3\xbc") == "\\xc3\xc3\xbc");                // the second one is whole
}

TEST_CASE("a message with such names arrives", "[rpc][text]") {
    rpc::NodeMessage message;
    rpc::DumpDone& done = *message.mutable_dump_done();
    done.set_checkpoint_id(7);
    done.set_error("the socket of \xff\xfe");
    rpc::DumpedImage& image = *done.add_images();
    image.add_files()->set_path("/home/user1/\xe9t\xe9");
    image.add_files()->set_path("/home/user1/\xc3\xa9t\xc3\xa9");
    image.mutable_files(1)->set_size(12);
    image.mutable_files(0)->set_append(true);

    rpc::make_utf8(message);
    rpc::NodeMessage received;
    REQUIRE(received.ParseFromString(message.SerializeAsString()));
    CHECK(received.dump_done().checkpoint_id() == 7);
    CHECK(received.dump_done().error() == "the socket of \\xff\\xfe");
    REQUIRE(received.dump_done().images_size() == 1);
    const auto& files = received.dump_done().images(0).files();
    REQUIRE(files.size() == 2);
    CHECK(files[0].path() == "/home/user1/\\xe9t\\xe9");
    CHECK(files[0].append());
    CHECK(files[1].path() == "/home/user1/\xc3\xa9t\xc3\xa9");
    CHECK(files[1].size() == 12);
}

TEST_CASE("lists of texts, and bytes", "[rpc][text]") {
    rpc::NodeHello hello;
    hello.set_nonce("\xff\x00");
    hello.mutable_info()->add_backend_notes("fine");
    hello.mutable_info()->add_backend_notes("\xfe");
    rpc::make_utf8(hello);
    CHECK(hello.nonce() == "\xff\x00");
    CHECK(hello.info().backend_notes(0) == "fine");
    CHECK(hello.info().backend_notes(1) == "\\xfe");
}
