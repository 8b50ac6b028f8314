// SPDX-License-Identifier: GPL-3.0-or-later
#include "rpc/text.h"

#include <format>
#include <vector>

namespace sckpt::rpc {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

bool is_continuation(unsigned char byte) { return (byte & 0xc0) == 0x80; }

// How many bytes the well-formed character at the front takes; 0: there is none.
std::size_t character_size(std::string_view text) {
    const auto at = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    const unsigned first = at(0), second = at(1);
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return 0;
    const std::size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    for (std::size_t i = 1; i < size; ++i)
        if (!is_continuation(static_cast<unsigned char>(at(i)))) return 0;
    if (first == 0xe0 && second < 0xa0) return 0;   // an overlong form
    if (first == 0xed && second >= 0xa0) return 0;  // a surrogate
    if (first == 0xf0 && second < 0x90) return 0;   // an overlong form
    if (first == 0xf4 && second >= 0x90) return 0;  // beyond U+10FFFF
    return size;
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t size = character_size(text);
        if (size == 0) return false;
        text.remove_prefix(size);
    }
    return true;
}

void make_string_utf8(Message& message, const FieldDescriptor* field) {
    const auto* reflection = message.GetReflection();
    if (!field->is_repeated()) {
        const std::string text = reflection->GetString(message, field);
        if (!is_utf8(text)) reflection->SetString(&message, field, utf8_text(text));
        return;
    }
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
        const std::string text = reflection->GetRepeatedString(message, field, i);
        if (!is_utf8(text)) reflection->SetRepeatedString(&message, field, i, utf8_text(text));
    }
}

void make_messages_utf8(Message& message, const FieldDescriptor* field) {
    const auto* reflection = message.GetReflection();
    if (!field->is_repeated()) return make_utf8(*reflection->MutableMessage(&message, field));
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) make_utf8(*reflection->MutableRepeatedMessage(&message, field, i));
}

}  // namespace

std::string utf8_text(std::string_view bytes) {
    std::string text;
    while (!bytes.empty()) {
        const std::size_t size = character_size(bytes);
        if (size == 0) text += std::format("\\x{:02x}", static_cast<unsigned char>(bytes[0]));
        else text += bytes.substr(0, size);
        bytes.remove_prefix(size == 0 ? 1 : size);
    }
    return text;
}

void make_utf8(Message& message) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
        if (field->type() == FieldDescriptor::TYPE_STRING) make_string_utf8(message, field);
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) make_messages_utf8(message, field);
    }
}

}  // namespace sckpt::rpc
