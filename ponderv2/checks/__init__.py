"""Do poses, depth, intrinsics, colour and points of a scene agree?"""
