// swift-tools-version: 6.2
// SPDX-License-Identifier: MIT
import PackageDescription

let package = Package(
    name: "example",
    dependencies: [.package(name: "MiniVMM", path: "../..")],
    targets: [
        .executableTarget(
            name: "example",
            dependencies: [
                .product(name: "MiniVMM", package: "MiniVMM"),
                .product(name: "Backends", package: "MiniVMM"),
                .product(name: "GuestPayloads", package: "MiniVMM"),
            ])
    ]
)
