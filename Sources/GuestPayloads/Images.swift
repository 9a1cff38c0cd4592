// SPDX-License-Identifier: MIT
import GuestImages

/// The assembled guests in this executable, by name, copied from the section `guest_table`.
enum Images {
    static let byName: [String: [UInt8]] = {
        var images: [String: [UInt8]] = [:]
        for index in 0..<guest_image_count() {
            guard let name = unsafe guest_image_name(index), let start = unsafe guest_image_start(index)
            else { continue }
            // The table is constant data of the executable, so its pointers are always valid.
            let bytes = unsafe UnsafeBufferPointer(start: start, count: guest_image_size(index))
            images[unsafe String(cString: name)] = unsafe Array(bytes)
        }
        return images
    }()

    /// Their assembler sources, by name.
    static let sources: [String: String] = {
        var sources: [String: String] = [:]
        for index in 0..<guest_image_count() {
            guard let name = unsafe guest_image_name(index), let start = unsafe guest_image_source(index)
            else { continue }
            let bytes = unsafe UnsafeBufferPointer(start: start, count: guest_image_source_size(index))
            sources[unsafe String(cString: name)] = unsafe String(decoding: bytes, as: UTF8.self)
        }
        return sources
    }()
}
