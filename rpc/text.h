// SPDX-License-Identifier: GPL-3.0-or-later
//
// Text that travels. A protobuf `string` must be UTF-8: one file name with other bytes in it makes the receiver refuse the whole
// message and end the stream. Names of files and processes are the users' choice, so every message passes here before it is sent.
#pragma once

#include <string>
#include <string_view>

#include <google/protobuf/message.h>

namespace sckpt::rpc {

// The same text with each byte that is not part of well-formed UTF-8 as "\xNN".
std::string utf8_text(std::string_view bytes);

// Applies utf8_text() to every `string` field of the message and of the messages in it.
void make_utf8(google::protobuf::Message& message);

}  // namespace sckpt::rpc
